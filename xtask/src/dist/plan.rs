//! packaging/packages.toml: which files make up a package, and what the package says of itself.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(rename = "package")]
    pub packages: BTreeMap<String, Package>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub section: String,
    pub description: String,
    /// The description's further lines.
    pub extended: String,
    /// `{version}` stands for the version that is being made.
    #[serde(default)]
    pub depends: Vec<String>,
    pub files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(deserialize_with = "source")]
    pub from: Source,
    /// Below the prefix.
    pub to: PathBuf,
    pub mode: u32,
}

/// Where a file comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Program(String),
    Completions { shell: String, command: String },
    Repository(PathBuf),
}

fn source<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(match text.split_once(':') {
        Some(("bin", name)) => Source::Program(name.to_owned()),
        Some(("completions", rest)) => {
            let (shell, command) =
                rest.split_once('/').ok_or_else(|| serde::de::Error::custom(format!("{text}: no SHELL/COMMAND")))?;
            Source::Completions { shell: shell.to_owned(), command: command.to_owned() }
        }
        Some(_) => return Err(serde::de::Error::custom(format!("{text}: neither bin: nor completions:"))),
        None => Source::Repository(text.into()),
    })
}

impl Plan {
    pub fn read(path: &Path) -> Result<Plan> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Plan::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Plan> {
        let plan: Plan = toml::from_str(text)?;
        let mut owners: BTreeMap<&Path, &str> = BTreeMap::new();
        for (name, package) in &plan.packages {
            for file in &package.files {
                let inside = file.to.components().all(|part| matches!(part, Component::Normal(_)));
                ensure!(inside, "{name}: {} is not below the prefix", file.to.display());
                ensure!(file.mode & !0o777 == 0, "{name}: {}: mode {:o}", file.to.display(), file.mode);
                if let Some(other) = owners.insert(&file.to, name) {
                    // dpkg would refuse to install both.
                    anyhow::bail!("{} is in {other} and in {name}", file.to.display());
                }
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "section = 'net'\ndescription = 'd'\nextended = 'e'\n";

    fn with(files: &str) -> Result<Plan> {
        Plan::parse(&format!("[package.a]\n{HEAD}files = [{files}]\n"))
    }

    #[test]
    fn files_come_from_three_places() {
        let plan = with(
            "{ from = 'bin:bpsh', to = 'bin/bpsh', mode = 0o755 }, { from = 'completions:zsh/bpsh', to = 'z', mode = 0o644 },
             { from = 'docs/x', to = 'share/x', mode = 0o644 }",
        )
        .expect("a plan");
        let sources: Vec<&Source> = plan.packages["a"].files.iter().map(|file| &file.from).collect();
        let completions = Source::Completions { shell: "zsh".to_owned(), command: "bpsh".to_owned() };
        assert_eq!(sources, [&Source::Program("bpsh".to_owned()), &completions, &Source::Repository("docs/x".into())]);
    }

    #[test]
    fn what_dpkg_would_refuse_is_refused_here() {
        let twice = format!(
            "[package.a]\n{HEAD}files = [{{ from = 'x', to = 'bin/x', mode = 0o755 }}]\n\
             [package.b]\n{HEAD}files = [{{ from = 'y', to = 'bin/x', mode = 0o755 }}]\n"
        );
        let why = Plan::parse(&twice).expect_err("one file in two packages").to_string();
        assert!(why.contains("bin/x") && why.contains("a and in b"), "{why}");
        for to in ["/etc/x", "../x", "a/../../x"] {
            assert!(with(&format!("{{ from = 'x', to = '{to}', mode = 0o644 }}")).is_err(), "{to}");
        }
        assert!(with("{ from = 'bpsh:x', to = 'x', mode = 0o644 }").is_err());
        assert!(with("{ from = 'x', to = 'x', mode = 0o4755 }").is_err());
    }

    /// Every program and every manual page is in a package, in one.
    #[test]
    fn the_plan_forgets_nothing() {
        let root = crate::products::workspace();
        let plan = Plan::read(&root.join("packaging/packages.toml")).expect("the plan");
        let files = || plan.packages.values().flat_map(|package| &package.files);
        for program in crate::products::PROGRAMS {
            let found = files().filter(|file| file.from == Source::Program(program.to_owned())).count();
            assert_eq!(found, 1, "{program}");
        }
        for page in std::fs::read_dir(root.join("docs/man")).expect("pages").flatten() {
            let path = Path::new("docs/man").join(page.file_name());
            assert!(files().any(|file| file.from == Source::Repository(path.clone())), "{}", path.display());
        }
        for file in files() {
            if let Source::Repository(path) = &file.from {
                assert!(root.join(path).is_file(), "{}", path.display());
            }
        }
    }
}
