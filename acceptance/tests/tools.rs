//! The tools that people have, Debian's own packages of them, with bpsh in rsh's or ssh's place.

use std::time::Duration;

use acceptance::{Cluster, Ended, Finished};

/// For the slowest of them on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Runs a script on the master, by a shell that stops at the first failure. It needs these programs there.
#[track_caller]
fn script(cluster: &Cluster, needed: &[&str], text: &str) -> Finished {
    for (program, package) in PACKAGES.iter().filter(|(program, _)| needed.contains(program)) {
        let found = cluster.command("sh").args(["-c", &format!("command -v {program}")]).run();
        assert!(
            matches!(found.ended, Ended::Exited(0)),
            "{program} is not installed: apt-get install -y --no-install-recommends {package}"
        );
    }
    cluster.command("bash").args(["-euc", text]).directory("/tmp").limit(LONG).run()
}

const PACKAGES: [(&str, &str); 9] = [
    ("rsync", "rsync"),
    ("mpirun", "openmpi-bin libopenmpi-dev"),
    ("mpicc", "openmpi-bin libopenmpi-dev"),
    ("clush", "clustershell"),
    ("pdsh", "pdsh"),
    ("parallel", "parallel"),
    ("git", "git"),
    ("make", "make"),
    ("gcc", "gcc"),
];

#[test]
fn rsync_to_a_node_and_back() {
    let cluster = Cluster::attach();
    let text = "mkdir -p rs/dir; echo hello > rs/dir/file; echo blank > 'rs/a b'; ln -sf dir/file rs/link
        rsync -a -e bpsh rs/ n1:/tmp/rs.there/
        bpsh 1 cat /tmp/rs.there/dir/file
        rsync -a -e 'bpsh -l somebody' n1:/tmp/rs.there/ rs.back/
        diff -r rs rs.back
        rsync -s -a -e bpsh rs/ 'n2:/tmp/two words/'
        bpsh 2 cat '/tmp/two words/a b'";
    assert_eq!(script(&cluster, &["rsync"], text).success(), "hello\nblank\n");
}

#[test]
fn mpirun_over_four_nodes() {
    let cluster = Cluster::attach();
    let source = include_str!("../programs/ring.c");
    let text = format!(
        "cat > ring.c <<'END'\n{source}END\nmpicc -o ring ring.c\nbpcp -p ring 0-3:/tmp
        mpirun --allow-run-as-root --mca plm_rsh_agent bpsh --host n0,n1,n2,n3 -np 4 /tmp/ring | sort"
    );
    let shown = script(&cluster, &["mpirun", "mpicc"], &text).success();
    let expected: String = (0..4).map(|n| format!("rank {n} of 4 on n{n}\n")).collect();
    assert_eq!(shown, expected + "token 4 sum 6\n");
}

#[test]
fn pdsh_and_clush_by_exec() {
    let cluster = Cluster::attach();
    let text = "pdsh -S -R exec -w 'n[0-3]' bpsh %h uname -n | sort
        clush -S -R exec -w 'n[0-3]' -b bpsh %h uname -s
        pdsh -S -R exec -w 'n[0-3]' bpsh %h 'exit 3' 2>/dev/null || echo pdsh $?
        clush -S -q -R exec -w 'n[0-3]' bpsh %h sh -c '\"exit 4\"' 2>/dev/null || echo clush $?";
    let shown = script(&cluster, &["pdsh", "clush"], text).success();
    for expected in ["n0: n0\nn1: n1\nn2: n2\nn3: n3\n", "n[0-3] (4)\n", "\nLinux\n", "pdsh 3\n", "clush 4\n"] {
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }
}

#[test]
fn gnu_parallel_by_ssh() {
    let cluster = Cluster::attach();
    // Without these it runs nothing, and says nothing.
    let text = "export HOME=/tmp SHELL=/bin/bash
        parallel --will-cite --ssh bpsh -S 2/n0,2/n1 'echo {} $(uname -s)' ::: a 'b  c' d e | sort
        parallel --will-cite --ssh bpsh -S 1/n2 --pipe -N1 -k 'cat; uname -n' < <(printf '1\\n2\\n')";
    assert_eq!(
        script(&cluster, &["parallel"], text).success(),
        "a Linux\nb  c Linux\nd Linux\ne Linux\n1\nn2\n2\nn2\n"
    );
}

#[test]
fn tar_to_all_at_once() {
    let cluster = Cluster::attach();
    let text = "mkdir -p tarred/dir; seq 100000 > tarred/dir/numbers; chmod 600 tarred/dir/numbers
        tar c tarred | bpsh 0-3 tar x -C /tmp
        bpsh 0-3 sh -c 'stat -c %a /tmp/tarred/dir/numbers; cksum < /tmp/tarred/dir/numbers' | sort | uniq -c | wc -l
        bpsh 3 tar c -C /tmp tarred | tar x -C /tmp --transform s/tarred/back/
        cmp tarred/dir/numbers back/dir/numbers";
    assert_eq!(script(&cluster, &[], text).success(), "2\n");
}

#[test]
fn git_with_bpsh_for_ssh() {
    let cluster = Cluster::attach();
    let text = "export GIT_SSH=bpsh GIT_CONFIG_NOSYSTEM=1 HOME=/tmp
        bpsh 2 git init -q --bare '/tmp/there.git'
        git init -q git.here; cd git.here; echo text > file; git add file
        git -c user.name=n -c user.email=e commit -q -m one
        git push -q n2:/tmp/there.git HEAD:refs/heads/x
        cd ..; git clone -q -b x n2:/tmp/there.git git.back; cat git.back/file";
    assert_eq!(script(&cluster, &["git"], text).success(), "text\n");
}

#[test]
fn make_with_bpsh_before_the_compiler() {
    let cluster = Cluster::attach();
    let text = r#"mkdir -p made; cd made; bpsh 3 mkdir -p /tmp/made
        echo 'int f(void); int main(void) { return f(); }' > main.c; echo 'int f(void) { return 5; }' > f.c
        printf 'prog: main.o f.o\n\t$(CC) -o $@ $^\n' > Makefile
        tar c . | bpsh 3 tar x
        make -s -j2 CC='bpsh 3 gcc'
        bpsh 3 ./prog || echo $?
        echo 'int x = ;' > bad.c; tar c bad.c | bpsh 3 tar x; make -s CC='bpsh 3 gcc' bad.o 2>/dev/null || echo failed"#;
    assert_eq!(script(&cluster, &["make", "gcc"], text).success(), "5\nfailed\n");
}
