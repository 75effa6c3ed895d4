//! The units of packaging/systemd: what must be in them, and what must not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let paths: Vec<PathBuf> = fs::read_dir(directory).expect("units").flatten().map(|entry| entry.path()).collect();
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a unit"))).collect()
}

/// Directives and their values, as `Section.Key`.
fn directives(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            found.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    found
}

/// What makes systemd give a service a mount namespace of its own: mounts of the view, made there, would reach nobody else
/// (systemd.exec(5); systemd's src/core/execute.c, exec_needs_mount_namespace(), of versions 252 to 257).
const MOUNT_NAMESPACE: [&str; 40] = [
    "RootDirectory",
    "RootImage",
    "RootEphemeral",
    "MountAPIVFS",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "ExecPaths",
    "NoExecPaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "TemporaryFileSystem",
    "MountImages",
    "ExtensionImages",
    "ExtensionDirectories",
    "MountFlags",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateUsers",
    "PrivateIPC",
    "PrivatePIDs",
    "PrivateNetwork",
    "NetworkNamespacePath",
    "IPCNamespacePath",
    "ProtectSystem",
    "ProtectHome",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectClock",
    "ProtectHostname",
    "ProtectProc",
    "ProcSubset",
    "LogNamespace",
    "DynamicUser",
    "LoadCredential",
    "SetCredential",
    "ImportCredential",
];

fn forbidden(text: &str) -> Vec<String> {
    let named = |key: &str| key.split_once('.').is_some_and(|(_, name)| MOUNT_NAMESPACE.contains(&name));
    let also = |key: &str| key.starts_with("Service.Protect") || key.starts_with("Service.Private");
    directives(text).into_iter().map(|(key, _)| key).filter(|key| named(key) || also(key)).collect()
}

#[test]
fn no_unit_makes_a_mount_namespace() {
    let units = units();
    assert_eq!(units.len(), 2);
    for (name, text) in units {
        assert_eq!(forbidden(&text), [""; 0], "{name}");
        // The check would notice.
        for planted in ["ProtectSystem=full", "PrivateTmp=yes", "ReadOnlyPaths=/usr", "ProtectSomethingNew=1"] {
            let spoilt = text.replace("[Service]", &format!("[Service]\n{planted}"));
            assert_eq!(forbidden(&spoilt).len(), 1, "{planted}");
        }
    }
}

#[test]
fn what_a_restart_must_not_end_is_not_ended() {
    for (name, text) in units() {
        let all = directives(&text);
        let value = |key: &str| {
            let mut of_key = all.iter().filter(|(found, _)| found == key);
            let (_, value) = of_key.next().unwrap_or_else(|| panic!("{name} has no {key}"));
            value.as_str()
        };
        assert_eq!(value("Unit.StartLimitIntervalSec"), "0", "a crash loop would drop the descriptor store");
        assert_eq!(value("Service.Type"), "notify");
        assert_eq!(value("Service.NotifyAccess"), "main");
        assert_eq!(value("Service.Restart"), "always");
        assert_eq!(value("Service.OOMPolicy"), "continue");
        assert_eq!(value("Service.ExecReload"), "/bin/kill -HUP $MAINPID");
        assert!(value("Service.WatchdogSec").parse::<u32>().is_ok_and(|seconds| seconds > 0));
        assert!(value("Unit.After").contains("network-online.target"));
        assert_eq!(value("Unit.Wants"), "network-online.target");
        match name.as_str() {
            "ghostd.service" => {
                assert_eq!(value("Service.RestartKillSignal"), "SIGUSR2");
                assert!(value("Service.FileDescriptorStoreMax").parse::<u32>().is_ok_and(|most| most >= 64));
                assert_eq!(value("Service.NoNewPrivileges"), "yes");
                let first_stop = all.iter().find(|(key, _)| key == "Service.KillSignal");
                assert_eq!(first_stop, None, "SIGTERM: a stop ends all");
            }
            "nodeagent.service" => {
                assert_eq!(value("Service.KillMode"), "process");
                assert_eq!(value("Service.KillSignal"), "SIGINT");
                assert_eq!(value("Service.RestartKillSignal"), "SIGTERM");
                assert_eq!(value("Service.TasksMax"), "infinity");
                assert!(all.iter().any(|(key, _)| key == "Service.Delegate"));
            }
            other => panic!("an unknown unit: {other}"),
        }
    }
}

/// The unit leaves ghostd what it takes itself (docs/threats.md has both), and the right to give up the rest.
#[test]
fn ghostds_capabilities_are_those_of_the_threat_model() {
    let (_, text) = units().into_iter().find(|(name, _)| name == "ghostd.service").expect("ghostd.service");
    let mut named: Vec<String> = directives(&text)
        .into_iter()
        .filter(|(key, _)| key == "Service.CapabilityBoundingSet")
        .flat_map(|(_, value)| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    named.sort();
    let threats =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threats.md")).expect("threats");
    let rows: Vec<&str> =
        threats.lines().skip_while(|line| !line.starts_with("| ghostd, and its child")).take(6).collect();
    let words = rows.iter().flat_map(|row| row.split('|').nth(2).unwrap_or_default().split(", "));
    let mut wanted: Vec<String> = words.map(|word| format!("CAP_{}", word.trim())).collect();
    wanted.push("CAP_SETPCAP".to_owned());
    wanted.sort();
    assert_eq!(named, wanted);
}

/// By systemd itself, where it is installed. The programs need not be.
#[test]
fn systemd_understands_every_line() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        // Nothing of it can be said here: the lines are checked by the virtual machines, which have systemd.
        return;
    }
    let directory = scratch();
    for (name, text) in units() {
        let path = directory.join(&name);
        let here = text.replace("/usr/sbin/ghostd", "/bin/true").replace("/usr/sbin/nodeagent", "/bin/true");
        fs::write(&path, here).expect("a copy");
        let said = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().expect("verify");
        let words = String::from_utf8_lossy(&said.stderr);
        let about: Vec<&str> = words.lines().filter(|line| line.contains(&name)).collect();
        assert_eq!(about, [""; 0], "{words}");
    }
    fs::remove_dir_all(directory).expect("remove");
}

fn scratch() -> PathBuf {
    let path = std::env::temp_dir().join(format!("ghostproc-units-{}", std::process::id()));
    fs::create_dir_all(&path).expect("directory");
    path
}

/// What is run as root on other people's machines, by whatever shell is there.
#[test]
fn scripts_are_of_any_posix_shell() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let mut scripts = vec![packaging.join("install.sh")];
    for package in ["ghostproc", "ghostproc-node", "ghostproc-tools"] {
        let entries = fs::read_dir(packaging.join(package)).expect("a package").flatten().map(|entry| entry.path());
        scripts.extend(entries.filter(|path| path.file_name().is_some_and(|name| name != "lintian-overrides")));
    }
    assert_eq!(scripts.len(), 9);
    for script in scripts {
        let text = fs::read_to_string(&script).expect("a script");
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e"), "{}", script.display());
        let said = Command::new("sh").arg("-n").arg(&script).output().expect("sh");
        assert!(said.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&said.stderr));
        for foreign in ["[[ ", "local ", "function ", "<<<"] {
            assert!(!text.contains(foreign), "{}: {foreign}", script.display());
        }
    }
}
