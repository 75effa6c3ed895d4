use super::*;
use crate::bpcp::send::{Sender, Sink};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// Straight from one end to the other.
struct Straight {
    receiver: Receiver,
    told: Vec<String>,
}

impl Sink for Straight {
    fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        if let Frame::Failed(text) = frame {
            self.told.push(String::from_utf8_lossy(text).into_owned());
        }
        self.receiver.take(frame);
        Ok(())
    }
}

fn wanted(target: &Path) -> Wanted {
    Wanted { target: target.to_owned(), into: false, preserve: true, sync: true }
}

/// Copies; what was told by both ends.
fn copy(sources: &[&Path], wanted: Wanted) -> (Count, Vec<String>) {
    let mut straight = Straight { receiver: Receiver::begin(wanted).expect("target"), told: Vec::new() };
    let mut sender = Sender::new(&mut straight, true);
    for source in sources {
        sender.send(source).expect("send");
    }
    let Straight { mut receiver, mut told } = straight;
    told.extend(receiver.failures());
    (receiver.count(), told)
}

#[test]
fn a_tree_arrives_as_it_is() {
    let place = tempfile::tempdir().expect("directory");
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let inner = from.join("a b\n*é");
    fs::create_dir_all(&inner).expect("directories");
    fs::write(inner.join(std::ffi::OsStr::from_bytes(b"\xff name")), "text").expect("write");
    fs::write(from.join("empty"), "").expect("write");
    fs::set_permissions(from.join("empty"), fs::Permissions::from_mode(0o451)).expect("mode");
    symlink("/nowhere/at all", from.join("link")).expect("link");
    let sparse = fs::File::create(from.join("sparse")).expect("create");
    sparse.write_all_at(b"begin", 0).expect("write");
    sparse.write_all_at(b"middle", 8 << 20).expect("write");
    sparse.set_len(64 << 20).expect("length");
    sparse.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).expect("time");
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o500)).expect("mode");
    nix::unistd::mkfifo(&from.join("pipe"), Mode::S_IRUSR).expect("pipe");

    let (count, told) = copy(&[&from], wanted(&to));
    assert_eq!((count, told.len()), (Count { made: 6, failed: 0 }, 1), "{told:?}");
    assert!(told[0].ends_with("from/pipe: is a named pipe, not copied"), "{told:?}");
    let there = to.join("a b\n*é");
    assert_eq!(fs::read_to_string(there.join(std::ffi::OsStr::from_bytes(b"\xff name"))).expect("read"), "text");
    assert_eq!(fs::metadata(to.join("empty")).expect("stat").mode() & 0o7777, 0o451);
    assert_eq!(fs::metadata(&there).expect("stat").mode() & 0o7777, 0o500);
    assert_eq!(fs::read_link(to.join("link")).expect("link"), Path::new("/nowhere/at all"));
    let (old, new) = (fs::metadata(from.join("sparse")).expect("stat"), fs::metadata(to.join("sparse")).expect("stat"));
    assert_eq!((new.len(), new.mtime()), (64 << 20, 1_000_000));
    assert!(new.blocks() <= old.blocks() + 16, "{} blocks of {}", new.blocks(), old.blocks());
    assert_eq!(fs::read(from.join("sparse")).expect("read"), fs::read(to.join("sparse")).expect("read"));
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).expect("mode");
    fs::set_permissions(&there, fs::Permissions::from_mode(0o700)).expect("mode");
}

#[test]
fn a_directory_gets_what_is_copied_into_it_another_name_is_the_copys() {
    let place = tempfile::tempdir().expect("directory");
    let at = |name: &str| place.path().join(name);
    fs::write(at("f"), "one").expect("write");
    fs::create_dir(at("d")).expect("directory");
    copy(&[&at("f")], wanted(&at("d")));
    copy(&[&at("f")], wanted(&at("g")));
    assert_eq!(fs::read_to_string(at("d/f")).expect("read"), "one");
    assert_eq!(fs::read_to_string(at("g")).expect("read"), "one");
    // The content of a directory, into one that is there.
    fs::create_dir(at("e")).expect("directory");
    assert_eq!(copy(&[&at("d/.")], wanted(&at("e"))).0, Count { made: 2, failed: 0 });
    assert_eq!(fs::read_to_string(at("e/f")).expect("read"), "one");
    let into = |name: &str| Wanted { into: true, ..wanted(&at(name)) };
    assert!(Receiver::begin(into("f")).expect_err("a file").ends_with("f: Not a directory"));
    assert!(Receiver::begin(into("none")).expect_err("nothing").ends_with("none: No such file or directory"));
    assert!(Receiver::begin(wanted(&at("none/f"))).is_err());
}

#[test]
fn a_link_in_the_target_leads_nowhere() {
    let place = tempfile::tempdir().expect("directory");
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("from/d")).expect("directory");
    fs::write(at("from/d/f"), "evil").expect("write");
    fs::write(at("from/g"), "new").expect("write");
    fs::create_dir_all(at("to/from")).expect("directory");
    fs::create_dir(at("elsewhere")).expect("directory");
    fs::write(at("victim"), "mine").expect("write");
    symlink(at("elsewhere"), at("to/from/d")).expect("link");
    symlink(at("victim"), at("to/from/g")).expect("link");
    let (count, told) = copy(&[&at("from")], wanted(&at("to")));
    assert_eq!(count, Count { made: 2, failed: 2 }, "{told:?}");
    assert!(told[0].ends_with("to/from/d: Not a directory"), "{told:?}");
    assert!(!at("elsewhere/f").exists());
    assert_eq!(fs::read_to_string(at("victim")).expect("read"), "mine");
    assert!(fs::symlink_metadata(at("to/from/g")).expect("stat").is_file(), "the link itself is replaced");
}

#[test]
fn what_fails_in_the_middle_leaves_what_was_there() {
    let place = tempfile::tempdir().expect("directory");
    fs::write(place.path().join("f"), "old").expect("write");
    let mut receiver = Receiver::begin(wanted(place.path())).expect("target");
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    for end in [Some(Frame::Failed(b"why")), None] {
        receiver.take(&Frame::File { name: b"f", attributes, size: 4 });
        receiver.take(&Frame::Data(b"new"));
        end.iter().for_each(|end| receiver.take(end));
    }
    assert_eq!(receiver.count(), Count { made: 0, failed: 1 });
    drop(receiver);
    let names: Vec<_> = fs::read_dir(place.path()).expect("directory").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["f"]);
    assert_eq!(fs::read_to_string(place.path().join("f")).expect("read"), "old");
}
