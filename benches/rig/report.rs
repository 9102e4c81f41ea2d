//! Tables, on the terminal and as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::questions::{CLUSTERS, SERVICES};
use super::servers::Server;

/// The columns' names; the first few hold words, the others numbers.
pub struct Table {
    columns: &'static [&'static str],
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &'static [&'static str], words: usize) -> Table {
        Table { columns, words, rows: Vec::new() }
    }

    pub fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len(), "a row has every column");
        self.rows.push(row);
    }

    pub fn text(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let all = || std::iter::once(&header).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let space = if column == 0 { "" } else { "  " };
                let done = if column < self.words {
                    write!(text, "{space}{cell:width$}")
                } else {
                    write!(text, "{space}{cell:>width$}")
                };
                done.expect("a String grows");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    pub fn markdown(&self) -> String {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let rule = (0..self.columns.len()).map(|column| if column < self.words { "---" } else { "---:" }).collect();
        let mut text = line(self.columns.to_vec()) + &line(rule);
        for row in &self.rows {
            text += &line(row.iter().map(String::as_str).collect());
        }
        text
    }
}

/// A table and what there is to say beside it.
pub struct Section {
    pub title: &'static str,
    pub table: Table,
    pub notes: Vec<String>,
    /// Whether every answer that counts came and was right.
    pub right: bool,
}

impl Section {
    pub fn text(&self) -> String {
        let title = if self.title.is_empty() { String::new() } else { format!("{}:\n", self.title) };
        format!("{title}{}\n{}", self.table.text(), self.notes())
    }

    pub fn markdown(&self) -> String {
        let title = if self.title.is_empty() { String::new() } else { format!("{}:\n\n", self.title) };
        format!("{title}{}\n{}\n", self.table.markdown(), self.notes())
    }

    fn notes(&self) -> String {
        self.notes.iter().map(|note| format!("{note}\n")).collect()
    }
}

/// What it ran on, a sentence a line.
pub fn machine(cores: &[usize], own: usize) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "Linux {}; {} × {}; {}; load average before: {}.\n\
         Servers on core {}, load on core {own}; {SERVICES} services × {CLUSTERS} clusters; loopback.\n",
        read("/proc/sys/kernel/osrelease").trim(),
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.unwrap_or("unknown processor"),
        rustc.unwrap_or_else(|| "rustc unknown".into()),
        load_average(),
        list(cores),
    )
}

pub fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

pub fn versions(servers: &[Server]) -> String {
    let each: Vec<String> = servers
        .iter()
        .map(|server| {
            let memory = server.resident().map_or_else(|_| "?".into(), |kib| (kib / 1024).to_string());
            format!("{} {} ({memory} MiB)", server.name, server.version)
        })
        .collect();
    format!("Servers, with their resident memory before the load: {}.\n{}", each.join(", "), buffers(servers))
}

/// Who has a smaller receive buffer than the rest loses queries that the rest would answer late.
fn buffers(servers: &[Server]) -> String {
    let mut each = servers.iter().map(|server| &server.receive_buffer);
    if let Some(Ok(octets)) = each.next()
        && each.all(|other| other.as_ref() == Ok(octets))
    {
        return format!("Receive buffers of all servers: {} KiB.\n", octets / 1024);
    }
    let line = |server: &Server| match &server.receive_buffer {
        Ok(octets) => format!("Receive buffer of {}: {} KiB.\n", server.name, octets / 1024),
        Err(why) => format!("Receive buffer of {}: as the server has it, since {why}.\n", server.name),
    };
    servers.iter().map(line).collect()
}
