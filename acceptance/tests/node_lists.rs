//! Node lists as users type them: names, sets, groups, and mistakes that are shown where they are.

use acceptance::{Cluster, Ended, Finished, User};

const GROUPS: &str = r#"
[groups]
io = "0-1"
rest = "0-3!@io"
mine = { command = "echo $(($(id -u) - 999)); echo 3" }
slow = { command = "sleep 1000", seconds = 1 }
[sources]
row = { command = "echo n[$GROUP]" }
"#;

fn bpsh(cluster: &Cluster, list: &str) -> Finished {
    cluster.command("bpsh").args(["-s", list, "hostname"]).user(User::ordinary()).run()
}

#[test]
fn names_sets_and_groups_are_nodes() {
    let cluster = Cluster::attach();
    std::fs::write(cluster.master().path("/etc/ghostproc/groups.toml"), GROUPS).expect("groups");
    for (list, nodes) in [
        ("n[1-3/2]", "13"),
        ("0-3!n0", "123"),
        ("0-3&(n1,2)", "12"),
        ("0-2^1-3", "03"),
        ("@io", "01"),
        ("@rest,0", "023"),
        // The command runs as the user who asks: 1000.
        ("@mine", "13"),
        ("@row:0-2", "012"),
    ] {
        let wanted: String = nodes.chars().map(|node| format!("n{node}\n")).collect();
        assert_eq!(bpsh(&cluster, list).success(), wanted, "{list}");
    }
    let numbers = cluster.command("bpstat").args(["-n", "@rest"]).run().success();
    assert_eq!(numbers, "2\n3\n");

    for (list, said) in [
        ("0,4-1", "bpsh: the range ends before it begins; write 1-4\n  0,4-1\n    ^\n"),
        ("0,n0-3", "bpsh: no node is called `n0-3`; did you mean n[0-3]?\n  0,n0-3\n    ^\n"),
        ("@io!7,8-", "bpsh: no node has a number of 8 or more\n  @io!7,8-\n        ^\n"),
        ("0,@slow", "bpsh: group `slow`: `sleep 1000` has not ended after 1 s\n  0,@slow\n    ^\n"),
    ] {
        let finished = bpsh(&cluster, list).expect(Ended::Exited(125));
        assert_eq!(finished.error_text(), said, "{list}");
    }
    let levels = bpsh(&cluster, "1/.").expect(Ended::Exited(125));
    assert!(levels.error_text().contains("this cluster has no tree"), "{}", levels.error_text());
}
