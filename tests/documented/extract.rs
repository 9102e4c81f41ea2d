//! The commands and the examples in documents, in the order in which they are read.

/// Fences of these are lines for a terminal.
const TERMINAL: [&str; 4] = ["sh", "bash", "shell", "console"];
/// In a line of text, what is set as code and begins with one of these, and has more than a name to it, is a command.
const PROGRAMS: &[&str] = &[
    "apt",
    "apt-get",
    "awk",
    "bash",
    "cargo",
    "cat",
    "cp",
    "curl",
    "dig",
    "dnsperf",
    "docker",
    "etcdctl",
    "git",
    "go",
    "helm",
    "install",
    "ip",
    "journalctl",
    "kdig",
    "kill",
    "kubectl",
    "kustomize",
    "make",
    "nft",
    "node",
    "npm",
    "npx",
    "nstat",
    "openssl",
    "perf",
    "podman",
    "promtool",
    "python3",
    "setcap",
    "sh",
    "signpost",
    "ss",
    "strace",
    "sudo",
    "sysctl",
    "systemctl",
    "systemd-analyze",
    "tcpdump",
    "useradd",
    "valgrind",
    "wget",
];
/// The same for programs of the repository.
const FOLDERS: [&str; 6] = ["./", ".ci/", "config/", "docs/", "target/", "tests/"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub file: String,
    pub line: usize,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something to type, and what the document shows as its output.
    Command { text: String, shown: Option<String> },
    /// Any other fenced block.
    Example { language: String, text: String },
}

impl Item {
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// An error names file and line.
pub fn items(file: &str, document: &str) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    let mut lines = document.lines().enumerate().map(|(n, line)| (n + 1, line)).peekable();
    let mut paragraph: Vec<&str> = Vec::new();
    // Whether nothing but empty lines was since a block of commands.
    let mut follows = false;
    while let Some((n, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if line.trim().is_empty() {
                inline(file, n - paragraph.len(), &mut paragraph, &mut items)?;
            } else {
                paragraph.push(line);
                follows = false;
            }
            continue;
        };
        let language = language.trim();
        inline(file, n - paragraph.len(), &mut paragraph, &mut items)?;
        let indent = line.len() - line.trim_start().len();
        let mut block = Vec::new();
        loop {
            let (at, line) = lines.next().ok_or_else(|| format!("{file}:{n}: the block has no end"))?;
            if line.trim_start() == "```" {
                break;
            }
            block.push((at, line.get(indent..).unwrap_or_default()));
        }
        let text = || block.iter().map(|(_, line)| format!("{line}\n")).collect::<String>();
        let place = |line, what| Item { file: file.to_owned(), line, what };
        match (language, items.last_mut()) {
            _ if TERMINAL.contains(&language) => {
                commands(file, language, &block, &mut items)?;
                follows = true;
            }
            ("" | "text", Some(Item { what: What::Command { shown: shown @ None, .. }, .. })) if follows => {
                *shown = Some(text());
                follows = false;
            }
            _ => {
                items.push(place(n, What::Example { language: language.to_owned(), text: text() }));
                follows = false;
            }
        }
    }
    let end = document.lines().count() + 1;
    inline(file, end - paragraph.len(), &mut paragraph, &mut items)?;
    Ok(items)
}

/// Of a block: a line each, unless it goes on behind a backslash or reads what follows.
fn commands(file: &str, language: &str, block: &[(usize, &str)], items: &mut Vec<Item>) -> Result<(), String> {
    let mut lines = block.iter();
    while let Some(&(n, line)) = lines.next() {
        let prompt = line.strip_prefix("$ ");
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if language == "console" && prompt.is_none() {
            let Some(Item { what: What::Command { shown, .. }, .. }) = items.last_mut() else {
                return Err(format!("{file}:{n}: output before a command"));
            };
            shown.get_or_insert_default().push_str(&format!("{line}\n"));
            continue;
        }
        let mut text = prompt.unwrap_or(line).to_owned();
        let end = text.split_once("<<").map(|(_, rest)| {
            let word = rest.trim_start_matches('-').split_whitespace().next().unwrap_or_default();
            word.trim_matches(['\'', '"']).to_owned()
        });
        while text.ends_with('\\') || end.as_ref().is_some_and(|end| text.lines().last() != Some(end)) {
            let (_, more) = lines.next().ok_or_else(|| format!("{file}:{n}: the command has no end"))?;
            text.push('\n');
            text.push_str(more);
        }
        items.push(Item { file: file.to_owned(), line: n, what: What::Command { text, shown: None } });
    }
    Ok(())
}

/// Of a paragraph that begins in line `start`; it is empty after that.
fn inline(file: &str, start: usize, paragraph: &mut Vec<&str>, items: &mut Vec<Item>) -> Result<(), String> {
    let text = paragraph.join("\n");
    paragraph.clear();
    let pieces: Vec<&str> = text.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return Err(format!("{file}:{start}: a backquote without another one in this paragraph"));
    }
    let mut line = start;
    for (n, piece) in pieces.iter().enumerate() {
        if n % 2 == 1 && is_command(piece) {
            let text = piece.split_whitespace().collect::<Vec<_>>().join(" ");
            items.push(Item { file: file.to_owned(), line, what: What::Command { text, shown: None } });
        }
        line += piece.matches('\n').count();
    }
    Ok(())
}

fn is_command(code: &str) -> bool {
    let set = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words: Vec<&str> = code.split_whitespace().skip_while(set).collect();
    match words.as_slice() {
        // `signpost drain` is the name of a command, and not one.
        ["signpost", _] | [_] | [] => false,
        [program, ..] => PROGRAMS.contains(program) || FOLDERS.iter().any(|folder| program.starts_with(folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: usize, text: &str, shown: Option<&str>) -> Item {
        let what = What::Command { text: text.to_owned(), shown: shown.map(str::to_owned) };
        Item { file: "a.md".to_owned(), line, what }
    }

    #[test]
    fn what_a_reader_would_type_is_found() {
        let document = "Run `make it` now, or `signpost explain NAME\n  --offline`; `signpost drain` is a name, `dig` too.\n\n\
            * so:\n\n  ```sh\n  # first\n  one two \\\n      three\n  four <<END\n  five\n  END\n  ```\n\n\
            \x20 ```\n  output\n   more\n  ```\n\n\
            ```\nno output\n```\n```console\n$ six\nseen\n```\n`A=b cargo test`\n```yaml\na: 1\n```\n";
        let example = |line, language: &str, text: &str| {
            let what = What::Example { language: language.to_owned(), text: text.to_owned() };
            Item { file: "a.md".to_owned(), line, what }
        };
        let expected = [
            command(1, "make it", None),
            command(1, "signpost explain NAME --offline", None),
            command(8, "one two \\\n    three", None),
            command(10, "four <<END\nfive\nEND", Some("output\n more\n")),
            example(20, "", "no output\n"),
            command(24, "six", Some("seen\n")),
            command(27, "A=b cargo test", None),
            example(28, "yaml", "a: 1\n"),
        ];
        assert_eq!(items("a.md", document).expect("it is well formed"), expected);
        for (document, complaint) in [
            ("\n```sh\nls\n", "a.md:2: the block has no end"),
            ("a\n\nb `c\n\nd` e\n", "a.md:3: a backquote without another one in this paragraph"),
            ("```sh\nls \\\n```\n", "a.md:2: the command has no end"),
        ] {
            assert_eq!(items("a.md", document).expect_err(document), complaint);
        }
    }
}
