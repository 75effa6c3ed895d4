//! Output as the manual shows it: `bpsh 0-3 hostname`, and the listing of the article with one file on node 3, byte for
//! byte.

use std::os::unix::fs::PermissionsExt;

use acceptance::{Cluster, Ended, User};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// 2004-12-17 01:38 UTC.
const DECEMBER_2004: i64 = 1_103_247_480;

/// Blocks of a tmpfs: 1 KiB units that `ls` counts by pages.
const FILE: &str = "/tmp/myoutput";

#[test]
fn hostname_of_four_nodes() {
    let cluster = Cluster::attach();
    let output = cluster.command("bpsh").args(["0-3", "hostname"]).run().success();
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["n0", "n1", "n2", "n3"]);
    assert!(output.ends_with('\n'));
}

#[test]
fn sorted_output_is_in_the_order_of_nodes() {
    let cluster = Cluster::attach();
    for _ in 0..20 {
        assert_eq!(cluster.command("bpsh").args(["-s", "0-3", "hostname"]).run().success(), "n0\nn1\nn2\nn3\n");
    }
}

#[test]
fn a_listing_of_all_nodes_is_the_golden_file() {
    let cluster = Cluster::attach();
    let path = cluster.node(3).path(FILE);
    std::fs::write(&path, "Hello world.\n").expect("the file on node 3");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("mode");
    std::os::unix::fs::chown(&path, Some(0), Some(0)).expect("owner");
    let then = TimeSpec::new(DECEMBER_2004, 0);
    utimensat(nix::fcntl::AT_FDCWD, &path, &then, &then, UtimensatFlags::NoFollowSymlink).expect("time");

    for user in [User::root(), User::ordinary()] {
        let command = cluster.command("bpsh").args(["-a", "-p", "-s", "-d", "ls", "-l", "/tmp"]);
        let output = command.user(user).run().success();
        assert_eq!(output, include_str!("golden/listing.txt"));
    }
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_missing_file_is_said_by_the_nodes_that_miss_it() {
    let cluster = Cluster::attach();
    let path = cluster.node(1).path("/tmp/only-here");
    std::fs::write(&path, "x\n").expect("the file on node 1");
    let finished = cluster.command("bpsh").args(["-p", "-s", "0-2", "cat", "/tmp/only-here"]).run();
    std::fs::remove_file(path).expect("removed");
    let finished = finished.expect(Ended::Exited(1));
    assert_eq!(finished.text(), "  1: x\n");
    let missing = |node: u32| format!("  {node}: cat: /tmp/only-here: No such file or directory\n");
    assert_eq!(finished.error_text(), missing(0) + &missing(2));
}
