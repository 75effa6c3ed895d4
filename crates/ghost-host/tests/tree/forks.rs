//! Who is whose child, in which group and session, as which user: processes made in all the ways there are.

use super::space::{Life, Space};

/// The only process besides init.
fn only(lives: &[Life]) -> &Life {
    assert_eq!(lives.len(), 1, "{lives:#?}");
    &lives[0]
}

/// Each is a child of the one before it, the first of init.
fn descend(lives: &[Life]) {
    for (index, life) in lives.iter().enumerate() {
        let Some(parent) = index.checked_sub(1).map(|index| &lives[index].fork) else {
            assert_eq!(life.fork.parent, 1);
            continue;
        };
        assert_eq!((life.fork.parent, life.fork.parent_key), (parent.pid, parent.key));
    }
}

pub fn fork_exec_exit() {
    let lives = Space::shell("/bin/sleep 0\n(exit 7)\n/bin/true\n:").run();
    assert_eq!(lives.len(), 3, "{lives:#?}");
    for life in &lives {
        assert_eq!((life.fork.parent, life.fork.uid, life.fork.euid, life.fork.gid), (1, 0, 0, 0));
        assert_eq!(life.fork.parent_key, lives[0].fork.parent_key);
        assert_eq!((life.fork.name(), life.fork.status, life.fork.flags), (&b"sh"[..], 0, 0));
        // Of the test, which is not in the namespace.
        assert_eq!((life.fork.pgid, life.fork.sid), (0, 0));
    }
    assert_eq!([lives[0].program(), lives[2].program()], ["sleep", "true"]);
    assert!(lives[1].execs.is_empty());
    let statuses: Vec<u32> = lives.iter().map(Life::status).collect();
    assert_eq!(statuses, [0, 7 << 8, 0]);
}

pub fn double_fork_and_session() {
    let lives = Space::new("double_fork").run();
    assert_eq!(lives.len(), 3);
    descend(&lives);
    let daemon = lives[1].fork.pid;
    assert_eq!((lives[2].fork.sid, lives[2].fork.pgid), (daemon, daemon));
    assert_eq!(lives[2].status(), 3 << 8);
}

pub fn group() {
    let lives = Space::new("own_group").run();
    assert_eq!(lives.len(), 2);
    descend(&lives);
    assert_eq!((lives[0].fork.pgid, lives[1].fork.pgid, lives[1].fork.sid), (0, lives[0].fork.pid, 0));
}

/// As most programs start others: with vfork's semantics.
pub fn posix_spawn() {
    let lives = Space::new("spawn").run();
    assert_eq!((only(&lives).program().as_str(), only(&lives).execs.len()), ("true", 1));
}

pub fn threads_have_no_records() {
    let lives = Space::new("threads").run();
    assert_eq!(only(&lives).status(), 0);
}

pub fn exec_in_a_thread() {
    for _ in 0..20 {
        let lives = Space::new("exec_in_thread").run();
        let life = only(&lives);
        assert_eq!((life.program().as_str(), life.execs.len(), life.status()), ("sh", 1, 8 << 8));
        assert_eq!((life.execs[0].parent, life.execs[0].parent_key), (1, life.fork.parent_key));
    }
}

pub fn fork_in_a_thread() {
    let lives = Space::new("fork_in_thread").run();
    assert_eq!(lives.len(), 2);
    descend(&lives);
    assert_eq!(lives[1].program(), "true");
}

/// `CLONE_PARENT`: the real parent is not the one who cloned.
pub fn sibling() {
    let lives = Space::new("sibling").run();
    assert_eq!(lives.len(), 2);
    assert_eq!((lives[1].fork.parent, lives[1].fork.parent_key), (1, lives[0].fork.parent_key));
    assert_eq!(lives[1].status(), 4 << 8);
}

/// A child whose end sends no signal, and one that shares descriptors.
pub fn odd_flags() {
    assert_eq!(only(&Space::new("silent").run()).status(), 11 << 8);
    assert_eq!(only(&Space::new("shares").run()).status(), 12 << 8);
}

/// Processes in a namespace of their own below the one that is followed have a number in both.
pub fn nested_namespace() {
    let mut space = Space::new("nested");
    space.go();
    space.end();
    let lives = super::space::lives(&space.records());
    assert_eq!(lives.len(), 3);
    descend(&lives);
    assert!(lives.iter().all(|life| life.reaped && life.fork.pid > 1));
    assert_eq!(lives.iter().map(Life::status).collect::<Vec<_>>(), [0, 0, 2 << 8]);
}

pub fn namespaces_do_not_see_each_other() {
    let mut quiet = Space::shell("read line");
    quiet.go();
    let lives = Space::new("double_fork").run();
    assert_eq!(lives.len(), 3);
    assert_eq!(quiet.programs.records(), 0);
    assert_eq!(quiet.programs.next_event(), None);
}

pub fn users() {
    let lives = Space::new("users").run();
    assert_eq!(lives.len(), 2);
    let ids = |life: &Life| (life.fork.uid, life.fork.euid, life.fork.gid);
    assert_eq!((ids(&lives[0]), ids(&lives[1])), ((0, 0, 0), (4321, 4322, 1234)));
}
