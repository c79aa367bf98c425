//! The interruption of a worker process, by signals that need no privilege and no help of the process.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use litplex_core::Pausing;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// The number of the field with the user time in `/proc/…/stat`, after the name of the program.
const USER_TIME: usize = 11;

/// A worker process that leads its process group.
#[derive(Debug)]
pub(crate) struct ProcessPausing {
    /// The process, which keeps its identity when its id is given to another one.
    process: OwnedFd,
    group: Pid,
}

impl ProcessPausing {
    /// Returns the means to interrupt a child process that was not waited for yet; `None` on systems
    /// without them.
    pub(crate) fn new(process: u32) -> Option<Self> {
        let group = Pid::from_raw(i32::try_from(process).ok()?)?;
        let process = pidfd_open(group, PidfdFlags::empty()).ok()?;
        Some(Self { process, group })
    }

    fn send(&self, signal: Signal) {
        // The id of the group cannot be another's while its leader is there, or was not waited for.
        if pidfd_send_signal(&self.process, signal).is_ok() {
            let _ = kill_process_group(self.group, signal);
        }
    }
}

impl Pausing for ProcessPausing {
    fn pause(&self) {
        self.send(Signal::STOP);
    }

    fn resume(&self) {
        self.send(Signal::CONT);
    }

    fn cpu_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.group.as_raw_pid())).ok()?;
        let ticks = cpu_ticks(&stat)?;
        Some(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
    }
}

/// Returns the user and the system time of all threads, as `/proc/…/stat` has them.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program is in parentheses, and may have any characters.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(USER_TIME);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn state(process: u32) -> String {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().next().unwrap().to_owned()
    }

    /// Waits until the process is stopped, or no longer.
    fn wait_until(process: u32, is_stopped: bool) {
        while (state(process) == "T") != is_stopped {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_stops_and_continues_and_one_that_is_gone_is_left_alone() {
        let sleeper = Sleeper(Command::new("sleep").arg("1000").process_group(0).spawn().unwrap());
        let id = sleeper.0.id();
        let pausing = ProcessPausing::new(id).unwrap();
        pausing.pause();
        wait_until(id, true);
        pausing.resume();
        wait_until(id, false);
        assert!(pausing.cpu_time().unwrap() < Duration::from_secs(60));
        drop(sleeper);
        pausing.pause();
        assert_eq!(pausing.cpu_time(), None);
    }

    #[test]
    fn the_cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 90 0 0 0 150 25 0 0 20 0 1 0 100";
        assert_eq!(cpu_ticks(stat), Some(175));
    }
}
