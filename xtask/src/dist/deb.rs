//! A Debian package of a staged tree.
//!
//! cargo-deb reads what it makes from a manifest; this one is written for it, so that versions that packages ask of each other, and
//! where the programs were built, need not be known beforehand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Release;
use super::plan::Package;
use crate::products::workspace;

/// Who stands in the packages for them.
const MAINTAINER: &str = "The ghostproc authors <ghostproc@packages.invalid>";
const LICENSE: &str = "MIT OR Apache-2.0";

const OTHER_LICENSE: &str = "
Or, at your choice, the Apache License, Version 2.0, whose text is in /usr/share/common-licenses/Apache-2.0 on Debian systems.
The kernel programs within these programs are under the MIT License or the GNU General Public License, version 2, whose text is in
/usr/share/common-licenses/GPL-2.
";

#[derive(Serialize)]
struct Manifest {
    workspace: Empty,
    package: About,
    lib: Library,
}

#[derive(Serialize)]
struct Empty {}

/// cargo wants something to build.
#[derive(Serialize)]
struct Library {
    path: &'static str,
}

#[derive(Serialize)]
struct About {
    name: String,
    version: &'static str,
    edition: &'static str,
    license: &'static str,
    description: String,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    deb: Deb,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Deb {
    name: String,
    maintainer: &'static str,
    copyright: &'static str,
    license_file: (PathBuf, &'static str),
    changelog: PathBuf,
    extended_description: String,
    section: String,
    priority: &'static str,
    depends: String,
    revision: String,
    maintainer_scripts: PathBuf,
    assets: Vec<(PathBuf, PathBuf, String)>,
}

/// Builds the package and returns where it is.
pub fn build(
    tool: &Path,
    name: &str,
    package: &Package,
    release: &Release,
    stage: &Path,
    output: &Path,
) -> Result<PathBuf> {
    let place = stage.join("manifests").join(name);
    fs::create_dir_all(&place)?;
    let manifest = manifest(name, package, release, stage, &place);
    fs::write(place.join("Cargo.toml"), toml::to_string(&manifest).context("the manifest")?)?;
    fs::write(place.join("lib.rs"), "")?;
    fs::write(place.join("changelog"), changelog(name, release))?;
    let mit = fs::read_to_string(workspace().join("LICENSE-MIT")).context("LICENSE-MIT")?;
    fs::write(place.join("license"), mit + OTHER_LICENSE)?;
    let made = output.join(format!("{name}_{}_amd64.deb", release.full()));
    let mut command = Command::new(tool);
    command.args(["--no-build", "--no-strip", "--quiet", "--output"]).arg(&made).arg("--manifest-path");
    command.arg(place.join("Cargo.toml"));
    if release.quick || !has_xz() {
        command.arg("--fast");
    } else {
        command.args(["--compress-type", "xz", "--compress-system"]);
    }
    command.env("SOURCE_DATE_EPOCH", release.date.to_string()).current_dir(&place).stdin(Stdio::null());
    let said = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().context("cargo-deb cannot be started")?;
    if !said.status.success() {
        bail!("cargo-deb cannot make {name}: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(made)
}

fn has_xz() -> bool {
    Command::new("xz").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn manifest(name: &str, package: &Package, release: &Release, stage: &Path, place: &Path) -> Manifest {
    let files = package.files.iter();
    let asset = |file: &super::plan::File| {
        (stage.join(name).join(&file.to), Path::new("/usr").join(&file.to), format!("{:o}", file.mode))
    };
    let depends: Vec<String> = package.depends.iter().map(|text| text.replace("{version}", &release.full())).collect();
    Manifest {
        workspace: Empty {},
        lib: Library { path: "lib.rs" },
        package: About {
            name: name.to_owned(),
            version: release.version,
            edition: "2021",
            license: LICENSE,
            description: package.description.clone(),
            metadata: Metadata {
                deb: Deb {
                    name: name.to_owned(),
                    maintainer: MAINTAINER,
                    copyright: "2026, The ghostproc authors",
                    license_file: (place.join("license"), "0"),
                    changelog: place.join("changelog"),
                    extended_description: package.extended.clone(),
                    section: package.section.clone(),
                    priority: "optional",
                    depends: depends.join(", "),
                    revision: release.revision.clone(),
                    maintainer_scripts: workspace().join("packaging").join(name),
                    assets: files.map(asset).collect(),
                },
            },
        },
    }
}

/// In Debian's form; what has changed stands in CHANGELOG.md.
fn changelog(name: &str, release: &Release) -> String {
    format!(
        "{name} ({}) unstable; urgency=medium\n\n  * Release {}; what has changed stands in the source's CHANGELOG.md.\n\n -- {MAINTAINER}  {}\n",
        release.full(),
        release.version,
        mail_date(release.date)
    )
}

/// `Sun, 22 Nov 2026 03:16:22 +0000`
fn mail_date(seconds: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 1970-01-01 was a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hours, minutes) = (rest / 3600, rest / 60 % 60);
    let weekday = DAYS[(days % 7) as usize];
    format!("{weekday}, {:02} {} {year} {hours:02}:{minutes:02}:{:02} +0000", day + 1, MONTHS[month], rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_mail_has_them() {
        assert_eq!(mail_date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(mail_date(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(mail_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(mail_date(1_795_317_382), "Sun, 22 Nov 2026 03:16:22 +0000");
    }
}
