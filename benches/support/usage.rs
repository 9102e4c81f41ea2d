//! What a process takes, and what the machine is.

use std::fs;
use std::io;
use std::time::Duration;

/// `/proc/PID/stat` counts in these, whatever the kernel's own clock (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// Octets of resident memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: u64,
    /// The most that it ever was.
    pub peak: u64,
}

/// Time on a core since the start, user and system, of all its threads, those that have ended too. To 10 ms.
pub fn cpu(process: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which ends with the last parenthesis: the fields from the third on (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u32> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(TICK * (user + system))
}

/// The same of the threads with this name that are there now, to the nanosecond.
pub fn cpu_of_threads(process: u32, name: &str) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        // A thread may have ended meanwhile.
        let read = |file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        if read("comm").trim_end() == name {
            nanoseconds += read("schedstat").split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

pub fn memory(process: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kibioctets = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.map(|number| number * 1024).ok_or(io::ErrorKind::InvalidData)
    };
    Ok(Memory { now: kibioctets("VmRSS:")?, peak: kibioctets("VmHWM:")? })
}

/// Kernel, cores and load average, in one line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!(
        "Linux {}; {} × {}; load average {}",
        read("/proc/sys/kernel/osrelease").trim(),
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.unwrap_or("unknown processor"),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// The value at this share of the sorted ones, as milliseconds.
pub fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).map_or(f64::NAN, |value| value.as_secs_f64() * 1000.0)
}
