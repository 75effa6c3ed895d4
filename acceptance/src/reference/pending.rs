//! Cases that do not pass yet, and what they wait for. A list that only ever gets shorter.

const LOST: &str = "a process whose parent ends at once stays without a ghost now and then";
const YOUNG: &str = "a signal to the ghost of a process that was just forked is lost now and then";
const CHANGES: &str = "a change of group or session is not mirrored yet";
const UPWARDS: &str = "a remote program does not see the master's parent, group and session yet";
const THREAD: &str = "a signal to a thread travels as one to the process";
const GROUP: &str = "bpsh dies by a signal to its group that the program handles";
const KILLED: &str = "a stopped bpsh has to be continued before it can end";

/// Name of the case, and what is missing.
pub const PENDING: &[(&str, &str)] = &[
    ("group-of-the-childs-own", GROUP),
    ("group-signal-reaches-children", GROUP),
    ("own-group-on-the-master", CHANGES),
    ("own-session-on-the-master", CHANGES),
    ("sibling-has-our-parent", UPWARDS),
    ("parent-group-session", UPWARDS),
    ("signal-to-own-group", UPWARDS),
    ("signal-to-the-groups-leader", UPWARDS),
    ("signal-to-the-parent", UPWARDS),
    ("thread-killed-with-sender", THREAD),
    ("signal-for-a-thread-alone", THREAD),
    ("group-signal-with-sender", GROUP),
    ("stopped-then-killed", KILLED),
    ("daemon-on-the-master", LOST),
    ("orphan-on-the-master", LOST),
    ("kill-a-child-from-the-master", YOUNG),
    ("signal-to-a-child-from-the-master", YOUNG),
];

/// What a case waits for.
pub fn reason(case: &str) -> Option<&'static str> {
    PENDING.iter().find(|(name, _)| *name == case).map(|(_, reason)| *reason)
}
