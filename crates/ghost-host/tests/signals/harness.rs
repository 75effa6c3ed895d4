//! Runs the tests one after the other and says so in libtest's words.

use std::io::Write;
use std::panic::catch_unwind;
use std::process::ExitCode;

/// Name and function.
pub type Test = (&'static str, fn());

/// Arguments as libtest's: words are parts of names, `--exact`, `--list`; other options are ignored.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| {
        words.is_empty() || words.iter().any(|word| if exact { *word == name } else { name.contains(word.as_str()) })
    };
    let chosen: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("these tests load kernel programs: run them as root");
        return ExitCode::FAILURE;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        print!("test {name} ... ");
        // Nothing to do if standard output is gone.
        let _ = std::io::stdout().flush();
        if catch_unwind(test).is_ok() {
            println!("ok");
        } else {
            println!("FAILED");
            failed.push(*name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed.len();
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        failed.len(),
        tests.len() - chosen.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
