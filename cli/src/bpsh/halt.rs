//! When a launch is broken off before all its ranks have ended. Pure.
//!
//! `--halt=now,fail=1`: `now` ends what runs, `soon` only begins nothing more (with `--fanout`); the condition is a number of
//! ranks that have failed, succeeded or ended, or a part of all in percent.

use std::str::FromStr;

/// What follows when the condition is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    Now,
    Soon,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Fail,
    Success,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Much {
    Ranks(usize),
    Percent(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HaltRule {
    halt: Halt,
    what: What,
    much: Much,
}

/// How many ranks there are, and how many of them have failed and succeeded. Those that were ended here are neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub ranks: usize,
    pub failed: usize,
    pub succeeded: usize,
}

impl HaltRule {
    /// Whether it is time.
    pub fn decide(self, count: Count) -> Option<Halt> {
        let (have, enough) = match self.what {
            What::Fail => (count.failed, count.failed > 0),
            What::Success => (count.succeeded, count.succeeded > 0),
            What::Done => (count.failed + count.succeeded, count.failed + count.succeeded > 0),
        };
        let met = match self.much {
            Much::Ranks(wanted) => have >= wanted,
            Much::Percent(percent) => have * 100 >= percent * count.ranks,
        };
        (met && enough).then_some(self.halt)
    }
}

impl FromStr for HaltRule {
    type Err = String;

    fn from_str(text: &str) -> Result<HaltRule, String> {
        let wrong = || {
            format!(
                "`{text}`: write now or soon, then fail=, success= or done= with a number or a percentage: now,fail=1"
            )
        };
        let (halt, condition) = match text.split_once(',') {
            Some(("now", condition)) => (Halt::Now, condition),
            Some(("soon", condition)) => (Halt::Soon, condition),
            None if text == "now" => (Halt::Now, "fail=1"),
            None if text == "soon" => (Halt::Soon, "fail=1"),
            None => (Halt::Now, text),
            Some(_) => return Err(wrong()),
        };
        let (what, much) = condition.split_once('=').ok_or_else(wrong)?;
        let what = match what {
            "fail" => What::Fail,
            "success" => What::Success,
            "done" => What::Done,
            _ => return Err(wrong()),
        };
        let (digits, percent) = match much.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (much, false),
        };
        let number: usize = digits.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let much = match percent {
            true if number <= 100 => Much::Percent(number),
            true => return Err(wrong()),
            false => Much::Ranks(number),
        };
        Ok(HaltRule { halt, what, much })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, [ranks, failed, succeeded]: [usize; 3], expected: Option<Halt>) {
        let rule: HaltRule = rule.parse().expect("a rule");
        assert_eq!(rule.decide(Count { ranks, failed, succeeded }), expected);
    }

    #[test]
    fn it_is_time_when_the_condition_is_met() {
        check("now,fail=1", [4, 0, 4], None);
        check("now,fail=1", [4, 1, 0], Some(Halt::Now));
        check("now", [4, 1, 0], Some(Halt::Now));
        check("fail=2", [4, 1, 3], None);
        check("fail=2", [4, 2, 0], Some(Halt::Now));
        check("soon", [4, 1, 0], Some(Halt::Soon));
        check("soon,done=3", [4, 1, 2], Some(Halt::Soon));
        check("now,success=1", [4, 3, 0], None);
        check("now,success=1", [4, 3, 1], Some(Halt::Now));
        check("now,fail=50%", [5, 2, 0], None);
        check("now,fail=50%", [5, 3, 0], Some(Halt::Now));
        check("now,fail=1%", [1000, 0, 0], None);
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for bad in
            ["", "never", "now,", "now,fail", "now,fail=0", "now,fail=x", "now,fail=101%", "later,fail=1", "fail=-1"]
        {
            let why = bad.parse::<HaltRule>().expect_err(bad);
            assert!(why.contains("now,fail=1"), "{why}");
        }
    }
}
