//! What ghostd itself uses, by the names that all Prometheus clients use for it.

use std::fs;
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

use super::text::Text;

/// Of this process, in seconds and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnProcess {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_descriptors: u64,
    pub most_descriptors: u64,
    /// Since 1970, as the kernel reckons it from the time of its boot.
    pub started_seconds: f64,
}

impl OwnProcess {
    /// As it is now; what cannot be read is 0.
    pub fn now() -> OwnProcess {
        let constant = |which| sysconf(which).ok().flatten().and_then(|value| u64::try_from(value).ok());
        let hertz = constant(SysconfVar::CLK_TCK).unwrap_or(100);
        let page = constant(SysconfVar::PAGE_SIZE).unwrap_or(4096);
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Once: that file is long where there are many processors, and a process does not begin anew when the clock is set.
        static BOOTED: OnceLock<u64> = OnceLock::new();
        let stat_of_all = || fs::read_to_string("/proc/stat").ok().and_then(|text| boot_second(&text)).unwrap_or(0);
        let booted = *BOOTED.get_or_init(stat_of_all);
        let parsed = parse(&stat, hertz as f64, page, booted as f64).unwrap_or_default();
        OwnProcess {
            open_descriptors: open_descriptors(),
            most_descriptors: ghost_sys::inherit::descriptor_limit(),
            ..parsed
        }
    }

    pub fn write(&self, text: &mut Text) {
        text.counter("process_cpu_seconds_total", "CPU time of ghostd, user and system.", self.cpu_seconds);
        text.gauge("process_resident_memory_bytes", "Resident memory of ghostd.", self.resident_bytes);
        text.gauge("process_virtual_memory_bytes", "Address space of ghostd.", self.virtual_bytes);
        text.gauge("process_open_fds", "Open descriptors of ghostd.", self.open_descriptors);
        text.gauge("process_max_fds", "Descriptors that ghostd may have.", self.most_descriptors);
        text.gauge("process_start_time_seconds", "When the process of ghostd began, since 1970.", self.started_seconds);
    }
}

/// Since Linux 6.2 the directory's size is their number (fs/proc/fd.c, `proc_fd_getattr()`); before that it is 0 and they are counted.
fn open_descriptors() -> u64 {
    match fs::metadata("/proc/self/fd") {
        Ok(metadata) if metadata.len() > 0 => metadata.len(),
        // The one that reads the directory is among them.
        _ => fs::read_dir("/proc/self/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
    }
}

fn boot_second(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Of a line of proc_pid_stat(5).
fn parse(stat: &str, hertz: f64, page: u64, booted: f64) -> Option<OwnProcess> {
    // The name may contain anything; what follows it are fields 3 and on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    Some(OwnProcess {
        cpu_seconds: (field(14)? + field(15)?) as f64 / hertz,
        resident_bytes: field(24)? * page,
        virtual_bytes: field(23)?,
        started_seconds: booted + field(22)? as f64 / hertz,
        ..OwnProcess::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name() {
        let line =
            "77 (a) R (b) S 1 77 77 0 -1 4194560 5 0 0 0 150 50 0 0 20 0 1 0 2000 8192000 10 18446744073709551615 1 1";
        let parsed = parse(line, 100.0, 4096, 1000.0).unwrap();
        let expected = OwnProcess {
            cpu_seconds: 2.0,
            resident_bytes: 40_960,
            virtual_bytes: 8_192_000,
            started_seconds: 1020.0,
            ..OwnProcess::default()
        };
        assert_eq!(parsed, expected);
        assert_eq!(parse("77 (x", 100.0, 4096, 0.0), None);
        assert_eq!(boot_second("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_has_all_of_it() {
        let own = OwnProcess::now();
        assert!(own.resident_bytes > 0 && own.open_descriptors > 0 && own.most_descriptors > 0, "{own:?}");
        let before = own.open_descriptors;
        let held: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this program open and close some, too.
        assert!(OwnProcess::now().open_descriptors >= before + 100);
        drop(held);
    }
}
