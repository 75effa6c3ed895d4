//! Comparing the transcripts of the reference run (`src/bin/reference`): what a program sees as a plain local child, and
//! what it sees through bpsh.
//!
//! Invariant: two transcripts are equal line by line, or differ by what [`permitted`] lists; anything else is a failure.

pub mod diff;
pub mod permitted;

/// Lines of a transcript that say that something did not work as the case wants it: such a transcript proves nothing.
const BROKEN: [&str; 2] = ["failed: ", "reference: failed"];

/// Judges the transcript of a launched program by that of a local one.
///
/// # Errors
/// What is wrong, for a person: a unified diff, or why the local transcript is none.
pub fn compare(local: &str, launched: &str) -> Result<(), String> {
    if local.lines().any(|line| BROKEN.iter().any(|broken| line.contains(broken))) {
        return Err(format!("the case does not work as a plain local child:\n{local}"));
    }
    let (local, launched) = (Vec::from_iter(local.lines()), Vec::from_iter(launched.lines()));
    let lines = diff::lines(&local, &launched, |here, there| here == there || permitted::reason(here, there).is_some());
    if lines.iter().all(diff::Line::is_equal) { Ok(()) } else { Err(diff::unified(&lines)) }
}

/// Which permitted differences there are between two transcripts that are equal otherwise.
pub fn permitted_in(local: &str, launched: &str) -> Vec<&'static str> {
    let pairs = local.lines().zip(launched.lines());
    pairs.filter(|(here, there)| here != there).filter_map(|(here, there)| permitted::reason(here, there)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str =
        "out: signal 10 SI_USER from observer of user 0\nobserver: child was killed by 11, core dumped\n";

    #[test]
    fn what_is_permitted_passes_and_is_named() {
        let launched = "out: signal 10 SI_QUEUE from observer of user 0\nobserver: child was killed by 11\n";
        assert_eq!(compare(LOCAL, LOCAL), Ok(()));
        let launched = launched.replace("of user 0", "of user 0, value 0");
        assert_eq!(compare(LOCAL, &launched), Ok(()));
        assert_eq!(permitted_in(LOCAL, &launched).len(), 2);
    }

    #[test]
    fn any_other_difference_is_shown() {
        for (there, here) in [
            ("from observer", "from another"),
            ("signal 10", "signal 12"),
            ("of user 0", "of user 1"),
            ("killed by 11, core dumped", "killed by 9"),
            ("out: ", "err: "),
            ("SI_USER", "SI_TKILL"),
        ] {
            let told = compare(LOCAL, &LOCAL.replace(there, here)).expect_err("it differs");
            assert!(told.contains(&format!("-{}", "")) && told.contains(here), "{told}");
        }
        compare(LOCAL, &format!("{LOCAL}observer: child was continued\n")).expect_err("a line more");
        compare(LOCAL, LOCAL.lines().next().unwrap_or_default()).expect_err("a line less");
        compare("", LOCAL).expect_err("nothing locally");
    }

    #[test]
    fn permitted_in_one_direction_only() {
        let more = "observer: child was killed by 11, core dumped";
        compare("observer: child was killed by 11", more).expect_err("a core that a local child does not dump");
        let queued = "out: signal 10 SI_QUEUE from observer of user 0";
        compare(queued, "out: signal 10 SI_USER from observer of user 0").expect_err("the other way");
        let own = "out: signal 10 SI_USER from program of user 0";
        compare(own, &own.replace("SI_USER", "SI_QUEUE")).expect_err("its own signal does not come from afar");
    }

    #[test]
    fn a_case_that_fails_in_both_is_a_failure() {
        let broken = "out: reference: failed: why\n";
        compare(broken, broken).expect_err("it says nothing");
        let broken = "observer: failed: Stopped: the child does not stop\n";
        compare(broken, broken).expect_err("it says nothing");
    }
}
