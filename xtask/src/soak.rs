//! `cargo xtask soak`: the long forms of what the tests do in slices. The last result of each part is kept in results/soak.md.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{machine, products, results};

/// Makes the tests take their long forms.
pub const LONG: &str = "GHOSTPROC_LONG";

const NAME: &str = "soak";
const HEAD: &str = "| part | date | seconds | result |\n|---|---|---|---|\n";

#[derive(Args)]
pub struct SoakArgs {
    /// Only these parts; of the others the last results stay
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Of the acceptance programs only these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    program: Vec<String>,
    /// Seconds after which one acceptance program is stopped
    #[arg(long, default_value_t = 3_600)]
    limit: u64,
    /// Seconds of each fuzz target
    #[arg(long, default_value_t = 300)]
    fuzz_seconds: u32,
    /// Do not change results/soak.md
    #[arg(long)]
    dry: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Simulation,
    Fuzzing,
    Acceptance,
}

/// A line of the table, by its first column.
type Rows = BTreeMap<String, [String; 3]>;

pub fn run(args: SoakArgs) -> Result<ExitCode> {
    machine::must_be_root("the soak")?;
    let mut rows = read(&results::kept(NAME));
    let mut well = true;
    for part in Part::value_variants() {
        if args.parts.is_empty() || args.parts.contains(part) {
            well &= part.run(&args, &mut rows)?;
        }
    }
    let body = write(&rows);
    print!("{body}");
    if !args.dry {
        let path = results::keep(NAME, "Soak", &body)?;
        println!("\nkept in {}", path.display());
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Part {
    /// Runs it and replaces its rows.
    fn run(self, args: &SoakArgs, rows: &mut Rows) -> Result<bool> {
        let mut command = match self {
            Part::Simulation => {
                let mut command = products::cargo("test");
                let test = "core::tests::simulation";
                command.args(["--quiet", "--release", "--package", "ghostd", "--lib", test, "--", "--nocapture"]);
                command
            }
            Part::Fuzzing => {
                let mut command = Command::new(products::own_program()?);
                command.args(["fuzz", "--seconds", &args.fuzz_seconds.to_string()]);
                command
            }
            Part::Acceptance => {
                let mut command = Command::new(products::own_program()?);
                command.args(["test", "--only", "acceptance", "--limit", &args.limit.to_string()]);
                if !args.program.is_empty() {
                    command.args(["--program", &args.program.join(",")]);
                }
                command
            }
        };
        let name = match self {
            Part::Simulation => "simulation of the cores",
            Part::Fuzzing => "fuzzing of the decoders",
            Part::Acceptance => "acceptance",
        };
        let began = Instant::now();
        let output = command.env(LONG, "1").stdin(Stdio::null()).stderr(Stdio::inherit()).output().context(name)?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        let date = results::date()?;
        if self == Part::Acceptance {
            for (program, seconds, result) in programs(&text) {
                rows.insert(format!("{name}: {program}"), [date.clone(), seconds, result]);
            }
        } else {
            rows.insert(name.to_owned(), [date, began.elapsed().as_secs().to_string(), told(&text)]);
        }
        Ok(output.status.success())
    }
}

/// The figures on lines that begin with `soak:`, and the closing line.
fn told(text: &str) -> String {
    let figures = text.lines().filter_map(|line| line.trim().strip_prefix("soak: "));
    let closing = text.lines().rev().find(|line| line.trim_start().starts_with("test result:")).unwrap_or("no result");
    let closing = closing.trim().split("; 0 measured").next().unwrap_or_default();
    figures.chain([closing]).collect::<Vec<_>>().join("<br>")
}

/// Of each program in the output of `cargo xtask test`: name, seconds, what it told.
fn programs(text: &str) -> Vec<(String, String, String)> {
    let (sections, summary) = text.split_once("==== summary").unwrap_or((text, ""));
    let seconds = |name: &str| {
        let line = summary.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().rev().nth(1).map(str::to_owned)
    };
    // A failing program prints more lines of this form; they are no names of programs.
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in sections.lines() {
        match line.strip_prefix("---- ") {
            Some(name) if seconds(name).is_some() => found.push((name, String::new())),
            _ => {
                if let Some((_, text)) = found.last_mut() {
                    *text += line;
                    text.push('\n');
                }
            }
        }
    }
    found.into_iter().map(|(name, text)| (name.to_owned(), seconds(name).unwrap_or_default(), told(&text))).collect()
}

fn read(text: &str) -> Rows {
    let cells = |line: &str| -> Option<(String, [String; 3])> {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let mut cells = line.splitn(4, " | ").map(str::to_owned);
        let (name, rest) = (cells.next()?, [cells.next()?, cells.next()?, cells.next()?]);
        (name != "part").then_some((name, rest))
    };
    text.lines().filter_map(cells).collect()
}

fn write(rows: &Rows) -> String {
    let lines =
        rows.iter().map(|(name, [date, seconds, result])| format!("| {name} | {date} | {seconds} | {result} |\n"));
    HEAD.to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let row = |text: &str| [format!("2026-01-0{}", text.len()), "5".to_owned(), text.to_owned()];
        let rows = Rows::from([("a".to_owned(), row("x")), ("b: c".to_owned(), row("y<br>z"))]);
        assert_eq!(read(&format!("# Soak\n\nsome words\n\n{}", write(&rows))), rows);
    }

    #[test]
    fn each_program_has_its_figures_and_its_time() {
        let text = "==== acceptance tests\n\n---- chaos\n\nrunning 1 test\nsoak: 7 launches\n\
                    test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s\n\n\
                    ---- view\n---- log of n0\ntest result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
                    ==== summary\nok     chaos    1 passed   0 failed   0 ignored     3 s\n\
                    FAILED view     2 passed   1 failed   0 ignored    71 s\n";
        let told = |name: &str, seconds: &str, told: &str| (name.to_owned(), seconds.to_owned(), told.to_owned());
        let wanted = [
            told("chaos", "3", "7 launches<br>test result: ok. 1 passed; 0 failed; 0 ignored"),
            told("view", "71", "test result: FAILED. 2 passed; 1 failed; 0 ignored"),
        ];
        assert_eq!(programs(text), wanted);
    }
}
