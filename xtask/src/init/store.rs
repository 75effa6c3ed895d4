//! The file descriptor store (sd_notify(3), FDSTORE=1): keeps a daemon's descriptors while there is no daemon.
//!
//! Invariant, as systemd's: the same open file is stored once; one that has become useless (EPOLLERR, EPOLLHUP) is
//! dropped unless it came with FDPOLL=0.

use std::os::fd::{AsFd, OwnedFd};

use ghost_sys::notify::{Notification, same_open_file};

#[derive(Debug)]
pub struct Stored {
    pub name: String,
    pub descriptor: OwnedFd,
    pub polled: bool,
}

#[derive(Debug, Default)]
pub struct Store(Vec<Stored>);

impl Store {
    /// Does what the notification asks for; returns a line for the log when it did something.
    pub fn handle(&mut self, mut notification: Notification) -> Option<String> {
        let name = notification.value("FDNAME").unwrap_or("stored").to_owned();
        if notification.value("FDSTOREREMOVE") == Some("1") {
            let before = self.0.len();
            self.0.retain(|stored| stored.name != name);
            return Some(format!("removed {} descriptors named {name}", before - self.0.len()));
        }
        if notification.value("FDSTORE") != Some("1") {
            return None;
        }
        let polled = notification.value("FDPOLL") != Some("0");
        let mut added = 0;
        for descriptor in notification.descriptors.drain(..) {
            // Without kcmp(2) everything is stored: twice is better than not at all.
            let same = |stored: &Stored| same_open_file(stored.descriptor.as_fd(), descriptor.as_fd()).unwrap_or(false);
            if !self.0.iter().any(same) {
                self.0.push(Stored { name: name.clone(), descriptor, polled });
                added += 1;
            }
        }
        Some(format!("stored {added} descriptors named {name}"))
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter()
    }

    /// Those that are watched. The others are not to be polled at all: poll(2) tells of an error that was not asked for, and
    /// some files (FUSE's) have one always.
    pub fn polled(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter().filter(|stored| stored.polled)
    }

    /// Drops those for which `useless` says so, by their place in [`Store::polled`].
    pub fn drop_useless(&mut self, useless: &[bool]) {
        let mut verdicts = useless.iter();
        self.0.retain(|stored| !stored.polled || !verdicts.next().copied().unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn message(text: &str, descriptors: Vec<OwnedFd>) -> Notification {
        Notification { pid: 1, text: text.to_owned(), descriptors }
    }

    fn names(store: &Store) -> Vec<&str> {
        store.iter().map(|stored| stored.name.as_str()).collect()
    }

    #[test]
    fn the_same_open_file_is_stored_once_and_removed_by_name() {
        let (one, other) = UnixStream::pair().expect("pair");
        let mut store = Store::default();
        let copy = |stream: &UnixStream| vec![OwnedFd::from(stream.try_clone().expect("dup"))];
        store.handle(message("FDSTORE=1\nFDNAME=pin", copy(&one)));
        store.handle(message("FDSTORE=1\nFDNAME=pin", copy(&one)));
        store.handle(message("FDSTORE=1", copy(&other)));
        assert_eq!(names(&store), ["pin", "stored"]);
        store.handle(message("FDSTOREREMOVE=1\nFDNAME=pin", vec![]));
        assert_eq!(names(&store), ["stored"]);
        store.drop_useless(&[true]);
        assert_eq!(store.iter().count(), 0);
    }

    #[test]
    fn descriptors_without_fdstore_are_closed() {
        let (one, mut other) = UnixStream::pair().expect("pair");
        let mut store = Store::default();
        assert_eq!(store.handle(message("READY=1", vec![one.into()])), None);
        let read = std::io::Read::read(&mut other, &mut [0]).expect("read");
        assert_eq!(read, 0, "the other end sees it closed");
    }

    #[test]
    fn what_is_not_to_be_polled_is_not() {
        let mut store = Store::default();
        let any = || vec![OwnedFd::from(UnixStream::pair().expect("pair").0)];
        store.handle(message("FDSTORE=1\nFDNAME=pin\nFDPOLL=0", any()));
        store.handle(message("FDSTORE=1\nFDNAME=watched", any()));
        assert_eq!(store.polled().map(|stored| stored.name.as_str()).collect::<Vec<_>>(), ["watched"]);
        store.drop_useless(&[true]);
        assert_eq!(names(&store), ["pin"]);
    }
}
