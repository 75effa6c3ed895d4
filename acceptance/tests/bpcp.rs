//! `bpcp`, as a user would try it.

use std::io::{BufRead, BufReader, Write};

use acceptance::{Cluster, Ended, Finished, Member, User};

fn bpcp(cluster: &Cluster, words: &[&str]) -> Finished {
    cluster.command("bpcp").args(words).user(User::ordinary()).directory("/tmp").run()
}

fn copied(cluster: &Cluster, words: &[&str]) {
    let finished = bpcp(cluster, words).expect(Ended::Exited(0));
    assert_eq!((finished.text(), finished.error_text()), (String::new(), String::new()), "{words:?}");
}

/// A shell line of the ordinary user, there.
fn shell(member: &Member, line: &str) -> String {
    member.command("sh").args(["-ec", line]).user(User::ordinary()).run().success()
}

/// An empty directory everywhere.
fn place(cluster: &Cluster, name: &str) -> String {
    let path = format!("/tmp/bpcp-{name}");
    for member in &cluster.members()[..5] {
        shell(member, &format!("chmod -R u+rwx {path} 2> /dev/null || :; rm -rf {path}; mkdir {path}"));
    }
    path
}

#[test]
fn a_file_goes_to_nodes_from_them_and_between_them() {
    let cluster = Cluster::attach();
    let at = place(&cluster, "file");
    let sum = |member: &Member, file: &str| shell(member, &format!("cd {at}; cksum < {file}"));
    shell(cluster.master(), &format!("cd {at}; head -c 3000001 /dev/urandom > data; : > 'empty: one'"));
    let wanted = sum(cluster.master(), "data");
    copied(&cluster, &[&format!("{at}/data"), &format!("0-3:{at}")]);
    copied(&cluster, &[&format!("2:{at}/data"), &format!("{at}/back")]);
    assert_eq!(sum(cluster.master(), "back"), wanted);
    copied(&cluster, &[&format!("1:{at}/data"), &format!("2-3:{at}/other")]);
    for (node, file) in [(0, "data"), (1, "data"), (2, "data"), (3, "data"), (2, "other"), (3, "other")] {
        assert_eq!(sum(cluster.node(node), file), wanted, "{file} on {node}");
    }
    // Several, from several places; a name with a colon; relative paths; what is there is replaced.
    copied(&cluster, &["-p", "./bpcp-file/empty: one", "bpcp-file/back", "1:bpcp-file/data", "0,3:bpcp-file/"]);
    assert_eq!(
        shell(cluster.node(3), &format!("cd {at}; ls -m; wc -c < 'empty: one'")),
        "back, data, empty: one, other\n0\n"
    );
}

const TREE: &str = "mkdir -p 'top/a b/deep/er' top/empty; cd top; echo one > 'a b/new\nline'; echo two > '*'; echo three > -rf; \
     head -c 40000 /dev/urandom > 'a b/deep/er/data'; ln -s '../no where' 'a b/link'; ln -s /etc dir-link; \
     printf begin > sparse; truncate -s 20M sparse; printf end >> sparse; chmod 4751 '*'; chmod 500 'a b/deep'; \
     touch -d '2001-02-03 04:05:06.789' sparse 'a b/link' 'a b'; chmod 1777 empty";
const SHOW: &str = "find top -printf '%p %y %m %s %l ' -type f -printf '%T@ ' -exec cksum '{}' ';' -o -printf '\n' | LC_ALL=C sort; \
     find top '(' -type d -o -type f ')' -printf '%p %T@\n' | LC_ALL=C sort; du -k top/sparse";

#[test]
fn a_tree_arrives_as_it_is() {
    let cluster = Cluster::attach();
    let at = place(&cluster, "tree");
    shell(cluster.master(), &format!("cd {at}; {TREE}"));
    // What a mode says of the identity of who runs a file is not given by who cannot give files away.
    let wanted = shell(cluster.master(), &format!("cd {at}; chmod 751 'top/*'; {SHOW}"));
    shell(cluster.master(), &format!("cd {at}; chmod 4751 'top/*'"));
    copied(&cluster, &["-rp", &format!("{at}/top"), &format!("0-1:{at}")]);
    copied(&cluster, &["-rp", &format!("0:{at}/top"), &format!("2-3:{at}/top")]);
    for node in 0..4 {
        assert_eq!(shell(cluster.node(node), &format!("cd {at}; {SHOW}")), wanted, "on {node}");
    }
    let sparse: u32 = wanted.lines().last().and_then(|line| line.split('\t').next()?.parse().ok()).expect("KiB");
    assert!(sparse < 1000, "the tree has a sparse file: {wanted}");
}

#[test]
fn what_fails_is_told_and_the_rest_is_copied() {
    let cluster = Cluster::attach();
    let at = place(&cluster, "fail");
    shell(
        cluster.master(),
        &format!("cd {at}; head -c 4000000 /dev/zero | tr '\\0' x > big; echo s > small; mkfifo pipe"),
    );
    let run = |words: &[&str], error: &str| {
        let finished = bpcp(&cluster, words).expect(Ended::Exited(1));
        assert_eq!(finished.error_text(), error, "{words:?}");
    };
    let to = format!("0-3:{at}");
    run(&[&format!("{at}/none"), &to], &format!("bpcp: {at}/none: No such file or directory\n"));
    run(&[&at, &to], &format!("bpcp: {at}: is a directory, not copied without -r\n"));
    run(&[&format!("1:{at}/none"), "."], &format!("bpcp: 1: {at}/none: No such file or directory\n"));
    run(&[&format!("{at}/small"), "0-1:/etc"], "bpcp: 0-1: /etc/small: Permission denied\n");
    run(&[&format!("{at}/small"), "0-1:/dev/null"], "bpcp: 0-1: /dev/null: neither a file nor a link; left as it is\n");
    run(
        &[&format!("{at}/small"), &format!("0-1:{at}/no/where")],
        &format!("bpcp: 0-1: {at}/no: No such file or directory\n"),
    );
    run(
        &[&format!("{at}/pipe"), &format!("{at}/small"), &to],
        &format!("bpcp: {at}/pipe: is a named pipe, not copied\n"),
    );
    assert_eq!(shell(cluster.node(3), &format!("ls {at}")), "small\n");

    // A directory of here need not be there when no path is seen from it.
    let line = format!("mkdir {at}/here && cd {at}/here && bpcp 3:{at}/small . 2>&1 && ls");
    assert_eq!(shell(cluster.master(), &line), "small\n");

    // On one node the disk is full.
    let full = format!("{at}/disk");
    (0..4).for_each(|node| drop(shell(cluster.node(node), &format!("mkdir {full}"))));
    let mount = ["-t", "tmpfs", "-o", "size=1m,mode=1777", "none", &full];
    cluster.node(1).command("mount").args(mount).run().success();
    let finished = bpcp(&cluster, &[&format!("{at}/big"), &format!("{at}/small"), &format!("0-3:{full}")]);
    let left: Vec<String> = (0..4).map(|node| shell(cluster.node(node), &format!("cd {full}; ls -am"))).collect();
    cluster.node(1).command("umount").arg(&full).run().success();
    assert_eq!(
        finished.expect(Ended::Exited(1)).error_text(),
        format!("bpcp: 1: {full}/big: No space left on device\n")
    );
    let all = "., .., big, small\n";
    assert_eq!(left, [all, "., .., small\n", all, all]);

    // Not everywhere there is a node.
    let finished = bpcp(&cluster, &["/etc/passwd", "77:/tmp"]).expect(Ended::Exited(1));
    assert!(finished.error_text().contains("77"), "{}", finished.error_text());
    for words in [&["x"][..], &[], &["a", "b"], &["a", "master:/tmp"], &["--nonsense", "a", "0:b"]] {
        bpcp(&cluster, words).expect(Ended::Exited(2));
    }
}

/// What a sending end sends, cut in the middle, and a receiving end that has it.
fn interrupted(cluster: &Cluster, at: &str, kill: bool) {
    shell(cluster.master(), &format!("cd {at}; echo one > a; head -c 3000000 /dev/zero > b"));
    let mut sent =
        cluster.command("bpcp").args(["--send", "--", "a", "b"]).directory(at).run().expect(Ended::Exited(0)).stdout;
    sent.truncate(2_000_000);
    let receive = ["0", "bpcp", "--receive", "--into", "--", at];
    let mut running = cluster.command("bpsh").args(receive).user(User::ordinary()).input_pipe().stdout_pipe().start();
    let mut input = running.take_stdin();
    input.write_all(&sent).expect("write");
    let mut told = BufReader::new(running.take_stdout());
    let mut line = String::new();
    told.read_line(&mut line).expect("read");
    assert_eq!(line, "made 1\n");
    if kill {
        cluster.node(0).command("pkill").args(["-9", "-f", &format!("^bpcp --receive.*{at}")]).run().success();
        running.wait().expect(Ended::Signaled(9));
    } else {
        drop(input);
        running.wait().expect(Ended::Exited(1));
    }
    assert_eq!(shell(cluster.node(0), &format!("cd {at}; ls -A; cat b")), "a\nb\nold\n");
}

#[test]
fn nothing_half_written_has_the_name() {
    let cluster = Cluster::attach();
    for kill in [false, true] {
        let at = place(&cluster, "kill");
        shell(cluster.node(0), &format!("cd {at}; echo old > b"));
        interrupted(&cluster, &at, kill);
    }
}
