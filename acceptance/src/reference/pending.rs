//! Cases that do not pass yet, and what they wait for. A list that only ever gets shorter.

const KILLED: &str = "a stopped bpsh has to be continued before it can end";

/// Name of the case, and what is missing.
pub const PENDING: &[(&str, &str)] = &[("stopped-then-killed", KILLED)];

/// What a case waits for.
pub fn reason(case: &str) -> Option<&'static str> {
    PENDING.iter().find(|(name, _)| *name == case).map(|(_, reason)| *reason)
}
