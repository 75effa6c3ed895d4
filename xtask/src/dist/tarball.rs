//! The tarball for other distributions: the staged files, and the script that installs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Release;
use super::plan::Plan;
use crate::products::workspace;

/// Debian's own places, and everybody's.
const ELSEWHERE: [(&str, &str); 1] = [("share/zsh/vendor-completions", "share/zsh/site-functions")];

/// Builds it and returns where it is.
pub fn build(plan: &Plan, release: &Release, stage: &Path, output: &Path) -> Result<PathBuf> {
    let name = format!("ghostproc-{}-x86_64", release.version);
    let top = stage.join("tarball").join(&name);
    for (package, content) in &plan.packages {
        for file in content.files.iter().filter(|file| !file.to.starts_with("share/lintian")) {
            let to = top.join(package).join(elsewhere(&file.to));
            fs::create_dir_all(to.parent().context("a file without a directory")?)?;
            fs::copy(stage.join(package).join(&file.to), &to).with_context(|| to.display().to_string())?;
        }
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(workspace().join(file), top.join(file)).with_context(|| file.to_owned())?;
    }
    let script = fs::read_to_string(workspace().join("packaging/install.sh")).context("packaging/install.sh")?;
    let script = script.replace("@VERSION@", release.version);
    fs::write(top.join("install.sh"), script)?;
    fs::set_permissions(top.join("install.sh"), fs::Permissions::from_mode(0o755))?;
    let made = output.join(format!("{name}.tar.gz"));
    let status = Command::new("tar")
        .args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
        .arg(format!("--mtime=@{}", release.date))
        // No date in it, so that equal content gives equal bytes.
        .args(["--use-compress-program", if release.quick { "gzip -n1" } else { "gzip -n9" }])
        .arg("--file")
        .arg(&made)
        .arg("--directory")
        .arg(stage.join("tarball"))
        .arg(&name)
        .status()
        .context("tar cannot be started")?;
    ensure!(status.success(), "tar failed; its message stands above");
    Ok(made)
}

fn elsewhere(to: &Path) -> PathBuf {
    let moved = ELSEWHERE.iter().find_map(|(from, place)| Some(Path::new(place).join(to.strip_prefix(from).ok()?)));
    moved.unwrap_or_else(|| to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_places_are_others() {
        assert_eq!(
            elsewhere(Path::new("share/zsh/vendor-completions/_bpsh")),
            Path::new("share/zsh/site-functions/_bpsh")
        );
        assert_eq!(elsewhere(Path::new("bin/bpsh")), Path::new("bin/bpsh"));
    }
}
