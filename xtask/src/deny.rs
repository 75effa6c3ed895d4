//! Whether everything that the product is built from may be: licences, sources, versions, by deny.toml.
//!
//! cargo-deny checks the same and the advisories as well; to build it takes longer than all other checks together, and its advisories come
//! from outside the package registries. So the tests check what cargo itself knows; deny.toml serves both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::products;

/// Every workspace: whatever is built from the registry.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Debug, Deserialize)]
struct Skip {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: BTreeSet<String>,
}

/// The part of `cargo metadata` that is looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

pub fn run() -> Result<ExitCode> {
    let root = products::workspace();
    let text = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let policy: Policy = toml::from_str(&text).context("deny.toml")?;
    let mut harm = BTreeSet::new();
    let mut packages = BTreeSet::new();
    for manifest in MANIFESTS {
        let metadata = metadata(&root.join(manifest))?;
        packages.extend(metadata.packages.iter().map(|package| (package.name.clone(), package.version.clone())));
        harm.extend(findings(&metadata, &policy)?);
    }
    for line in &harm {
        println!("deny: {line}");
    }
    println!("{} packages looked at", packages.len());
    Ok(if harm.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn metadata(manifest: &Path) -> Result<Metadata> {
    let mut command = products::cargo("metadata");
    command.args(["--format-version", "1", "--locked", "--manifest-path"]).arg(manifest);
    let output = command.output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("what cargo metadata says")
}

fn findings(metadata: &Metadata, policy: &Policy) -> Result<Vec<String>> {
    let mut harm = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        let called = format!("{} {}", package.name, package.version);
        versions.entry(&package.name).or_default().insert(&package.version);
        match &package.license {
            None => harm.push(format!("{called}: no licence is named")),
            Some(text) => {
                let expression = spdx::Expression::parse_mode(text, spdx::ParseMode::LAX)
                    .map_err(|why| anyhow::anyhow!("{called}: licence {text:?}: {}", why.reason))?;
                let allowed = |wanted: &spdx::LicenseReq| match wanted.license.id() {
                    Some(id) => policy.licenses.allow.contains(id.name),
                    None => false,
                };
                if !expression.evaluate(allowed) {
                    harm.push(format!("{called}: its licence {text:?} is not among those of deny.toml"));
                }
            }
        }
        if let Some(source) = &package.source {
            let registry = source.strip_prefix("registry+");
            if !registry.is_some_and(|registry| policy.sources.allow_registry.contains(registry)) {
                harm.push(format!("{called}: from {source}, which deny.toml does not allow"));
            }
        }
    }
    let skipped: BTreeSet<&str> = policy.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
    for (name, versions) in versions {
        if versions.len() > 1 && !skipped.contains(name) {
            let versions: Vec<&str> = versions.into_iter().collect();
            harm.push(format!("{name}: in several versions: {}", versions.join(", ")));
        }
    }
    Ok(harm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(packages: &str) -> Vec<String> {
        let policy = toml::from_str(
            "[licenses]\nallow = ['MIT', 'ISC', 'Unicode-3.0']\n[bans]\nskip = [{ name = 'syn', reason = '' }]\n\
             [sources]\nallow-registry = ['https://registry']\n",
        );
        let metadata = serde_json::from_str(&format!("{{\"packages\":[{packages}]}}")).expect("json");
        findings(&metadata, &policy.expect("toml")).expect("licences that can be read")
    }

    fn package(name: &str, version: &str, license: &str, source: &str) -> String {
        format!(r#"{{"name":"{name}","version":"{version}","license":"{license}","source":"{source}"}}"#)
    }

    #[test]
    fn what_may_be_used_is_not_spoken_of() {
        let good =
            ["MIT", "MIT/Apache-2.0", "LGPL-2.1-or-later OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "ISC AND MIT"];
        for license in good {
            assert_eq!(judge(&package("a", "1.0.0", license, "registry+https://registry")), [""; 0], "{license}");
        }
        let own = r#"{"name":"own","version":"0.1.0","license":"MIT","source":null}"#;
        assert_eq!(judge(own), [""; 0]);
        let twice = [
            package("syn", "1.0.0", "MIT", "registry+https://registry"),
            package("syn", "2.0.0", "MIT", "registry+https://registry"),
        ];
        assert_eq!(judge(&twice.join(",")), [""; 0]);
    }

    #[test]
    fn what_may_not_be_used_is_named() {
        for license in ["GPL-2.0-only", "MIT AND GPL-3.0-only", "Apache-2.0"] {
            let said = judge(&package("a", "1.0.0", license, "registry+https://registry"));
            assert!(said.len() == 1 && said[0].contains("a 1.0.0") && said[0].contains(license), "{said:?}");
        }
        let none = r#"{"name":"a","version":"1.0.0","license":null,"source":null}"#;
        assert_eq!(judge(none), ["a 1.0.0: no licence is named"]);
        for source in ["git+https://somewhere", "registry+https://another"] {
            let said = judge(&package("a", "1.0.0", "MIT", source));
            assert!(said.len() == 1 && said[0].contains(source), "{said:?}");
        }
        let twice = [
            package("a", "1.0.0", "MIT", "registry+https://registry"),
            package("a", "2.0.0", "MIT", "registry+https://registry"),
        ];
        assert_eq!(judge(&twice.join(",")), ["a: in several versions: 1.0.0, 2.0.0"]);
    }
}
