//! The closed list of differences between a program that runs here and one that runs on a node. There are no others.

/// A difference, and why it is none of ours to remove.
struct Permitted {
    reason: &'static str,
    /// Whether the line of the launched program is that of the local one but for this difference.
    applies: fn(local: &str, launched: &str) -> bool,
}

const ALL: &[Permitted] = &[
    Permitted {
        reason: "SI_USER, SI_TKILL and SI_KERNEL arrive as SI_QUEUE: only the kernel may claim them for others \
                 (kernel/signal.c, do_pidfd_send_signal())",
        applies: code_of_a_signal,
    },
    Permitted {
        reason: "the core flag in the wait status: bpsh would have to dump its own memory; that the program has dumped \
                 core is in bpsh's report",
        applies: |local, launched| local == format!("{launched}, core dumped"),
    },
    Permitted {
        reason: "resource usage in the wait status is bpsh's own: the kernel counts what a process itself has used",
        applies: |local, launched| {
            const USED: &str = "observer: the child has used CPU time: ";
            local == format!("{USED}yes") && launched == format!("{USED}no")
        },
    },
    Permitted {
        reason: "ptrace attaches to the ghost: the kernel's tracing does not leave the host",
        applies: |local, launched| local == "out: its tracer: observer" && launched == "out: its tracer: nobody",
    },
];

/// Why these two lines may differ; `None`: they may not.
pub fn reason(local: &str, launched: &str) -> Option<&'static str> {
    ALL.iter().find(|permitted| (permitted.applies)(local, launched)).map(|permitted| permitted.reason)
}

/// Of a signal that came from here: from the observer, or from the kernel.
fn code_of_a_signal(local: &str, launched: &str) -> bool {
    let pairs = [
        ("SI_USER from observer", "SI_QUEUE from observer"),
        ("SI_TKILL from observer", "SI_QUEUE from observer"),
        ("SI_KERNEL from nobody", "SI_QUEUE from nobody"),
    ];
    pairs.iter().any(|(here, there)| {
        let line = local.replace(here, there);
        // A queued signal has a value, and that of one that was not queued is 0.
        line != local && (line == launched || format!("{line}, value 0") == launched)
    })
}
