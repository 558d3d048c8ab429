//! The rules of the house that a compiler does not know: who may use whom, and what is not written here.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may use whom: DESIGN section 3. Every module may use itself and [`EVERYBODY`].
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &["api"]),
    ("registry", &["api", "store"]),
    ("adapters", &["api", "droplets"]),
    ("runtime", &["api", "registry"]),
    // Objects, by which controllers see everything, answers in the registry's words (ObjectName, ApiError).
    ("controllers", &["api", "mloc", "droplets", "runtime", "adapters", "registry"]),
    ("compose", &["api", "yaml"]),
    ("mloc", &["api"]),
    ("droplets", &["api"]),
    ("gitops", &["api", "compose", "registry", "runtime", "yaml"]),
    ("server", &["api", "registry", "runtime"]),
    ("facades", &["api", "mloc", "droplets", "registry", "adapters"]),
    // A process of its own, beside the server.
    ("worker", &["adapters", "api", "mloc"]),
    ("cli", &["api", "compose", "config", "app", "worker"]),
    ("yaml", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("sync", &[]),
];

/// They put everything together, or are it: no limits.
const UNLIMITED: &[&str] = &["app", "lib", "main"];

/// Metrics have one registry, log lines one set of field names; the clock is an argument and knows nothing of the runtime.
const EVERYBODY: &[&str] = &["telemetry", "runtime::clock", "sync"];

/// What reality asks beyond the table: `from` may use what begins with `path`.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        from: "runtime",
        path: "store",
        why: "Objects of this process hands on the registry's versions and watches",
    },
    Exception { from: "server", path: "store", why: "watch streams hand on versions that were serialised once" },
    Exception {
        from: "gitops",
        path: "store",
        why: "wakes when the store's log says that somebody changed what a file states",
    },
    Exception {
        from: "facades",
        path: "controllers::droplet",
        why: "a request to a droplet is routed while its caller waits: no object is written in between",
    },
    Exception {
        from: "facades",
        path: "runtime::objects",
        why: "the typed reads, writes and watches of the registry that controllers have",
    },
    Exception {
        from: "facades",
        path: "runtime::registry_objects",
        why: "the typed reads, writes and watches of the registry that controllers have",
    },
];

struct Exception {
    from: &'static str,
    path: &'static str,
    why: &'static str,
}

const MAX_LINES: usize = 600;

struct File {
    /// From the repository's root.
    path: PathBuf,
    text: String,
}

#[test]
fn modules_use_only_what_they_may() {
    let mut faults = Vec::new();
    for file in files("src") {
        let module = module_of(&file.path);
        if UNLIMITED.contains(&module.as_str()) || file.is_test() {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: say in MAY_USE of tests/tidy.rs what `{module}` may use", file.path.display()));
            continue;
        };
        for path in crate_paths(&without_comments(file.production())) {
            let used = path.split("::").next().unwrap_or_default();
            let excepted = EXCEPTIONS.iter().any(|e| e.from == module && path.starts_with(e.path));
            let for_everybody = EVERYBODY.iter().any(|free| path.starts_with(free));
            // Else it is a macro of ours, `crate::kinds!`.
            let is_module = MAY_USE.iter().any(|(name, _)| *name == used) || UNLIMITED.contains(&used);
            if is_module && used != module && !allowed.contains(&used) && !for_everybody && !excepted {
                faults.push(format!(
                    "{}: `{module}` may not use `crate::{path}` (may: {})",
                    file.path.display(),
                    allowed.join(", ")
                ));
            }
        }
    }
    assert!(EXCEPTIONS.iter().all(|e| !e.why.is_empty()), "an exception says why");
    report(&faults);
}

#[test]
fn exceptions_are_needed() {
    let files = files("src");
    let stale: Vec<String> = EXCEPTIONS
        .iter()
        .filter(|e| {
            !files
                .iter()
                .filter(|f| module_of(&f.path) == e.from && !f.is_test())
                .any(|f| crate_paths(&without_comments(f.production())).iter().any(|path| path.starts_with(e.path)))
        })
        .map(|e| format!("nobody in `{}` uses `{}` any more: take the exception out of tests/tidy.rs", e.from, e.path))
        .collect();
    report(&stale);
}

#[test]
fn nothing_unfinished_is_left() {
    // Put together here, so that this file does not find itself.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let mut faults = Vec::new();
    for file in sources() {
        for (number, line) in file.code_lines() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                faults
                    .push(format!("{}:{number}: {word}…) is for a working day, not for a commit", file.path.display()));
            }
        }
    }
    report(&faults);
}

#[test]
fn tests_do_not_sleep() {
    let words = ["thread", "time"].map(|module| format!("{module}::sleep("));
    let mut faults = Vec::new();
    for file in sources() {
        // Where the poll helpers are, with their deadlines; and peers that are slow on purpose.
        if file.path.starts_with("tests/support") || file.path.starts_with("tests/fixtures") {
            continue;
        }
        let mut before = "";
        let first_test_line = if file.is_test() { 0 } else { file.production().lines().count() };
        for (number, line) in file.text.lines().enumerate() {
            let excused = line.contains("// tidy:") || before.contains("// tidy:");
            if number >= first_test_line && !excused && words.iter().any(|word| line.contains(word.as_str())) {
                faults.push(format!(
                    "{}:{}: wait for a state with a deadline (a watch, a poll helper) or turn the clock; a poll helper itself \
                     says why after `// tidy:`",
                    file.path.display(),
                    number + 1
                ));
            }
            before = line;
        }
    }
    report(&faults);
}

#[test]
fn only_the_command_line_prints() {
    let words = ["print", "println", "eprint", "eprintln"].map(|word| format!("{word}!("));
    let mut faults = Vec::new();
    for file in files("src") {
        if matches!(module_of(&file.path).as_str(), "cli" | "main") || file.is_test() {
            continue;
        }
        for (number, line) in without_comments(file.production()).lines().enumerate() {
            let words_of = |word: &String| {
                line.split(|c: char| c.is_whitespace() || "{;(".contains(c)).any(|w| format!("{w}(") == *word)
            };
            if words.iter().any(words_of) {
                faults.push(format!("{}:{}: log with tracing; only src/cli prints", file.path.display(), number + 1));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{}: {lines} lines; split it by question (at most {MAX_LINES})", file.path.display()));
        }
        // The file beside it says what tests.rs tests.
        if !file.text.starts_with("//!") && !file.path.ends_with("tests.rs") {
            faults.push(format!("{}: begin with `//!` and a sentence on what it is for", file.path.display()));
        }
    }
    report(&faults);
}

#[test]
fn an_allowance_has_a_reason() {
    let mut faults = Vec::new();
    // Put together here, so that this file does not find itself.
    let starts = ["#[", "#!["].map(|bracket| format!("{bracket}allow("));
    for file in sources() {
        let code = without_comments(&file.text);
        for start in &starts {
            for (at, _) in code.match_indices(start.as_str()) {
                let attribute = code[at..].split(")]").next().unwrap_or_default();
                if !attribute.contains("reason") {
                    let number = code[..at].lines().count().max(1);
                    faults.push(format!("{}:{number}: `allow` needs a `reason = \"…\"`", file.path.display()));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn no_secret_is_logged() {
    let macros = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];
    let secrets = ["token", "secret", "password", "passwd", "authorization", "credential"];
    let mut faults = Vec::new();
    for file in files("src") {
        for (number, line) in file.code_lines() {
            let Some(call) = macros.iter().find_map(|m| line.find(m)).map(|at| &line[at..]) else { continue };
            // Values only: `%token`, `?settings.password`, `{secret}`.
            for (at, _) in call.match_indices(['%', '?', '{']) {
                let value: &str = call[at + 1..]
                    .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.')
                    .next()
                    .unwrap_or_default();
                if secrets.contains(&value.rsplit('.').next().unwrap_or_default()) {
                    faults.push(format!("{}:{number}: logs `{value}`", file.path.display()));
                }
            }
        }
    }
    report(&faults);
}

#[track_caller]
fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

impl File {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests")
            || self.path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")))
    }

    /// Without the tests at its end.
    fn production(&self) -> &str {
        let inline = self.text.match_indices("#[cfg(test)]\nmod ").find(|(at, start)| {
            let rest = &self.text[at + start.len()..];
            rest.lines().next().is_some_and(|line| line.ends_with('{'))
        });
        inline.map_or(&self.text, |(at, _)| &self.text[..at])
    }

    /// Numbered from 1, comments cut off.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn sources() -> Vec<File> {
    ["src", "tests"].into_iter().flat_map(files).collect()
}

fn files(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the repository can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root).expect("it was found below it").to_owned();
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `src/store/mod.rs` and `src/store.rs` are both `store`.
fn module_of(path: &Path) -> String {
    let first =
        path.components().nth(1).map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `a::b` of `crate::a::b` and of `crate::{a::b, c::{d, e}}`; of a nested group its first part is enough.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        // `gaia::my_crate::…` is something else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(first_parts(group)),
            None => paths.push(path_at(rest)),
        }
    }
    paths
}

/// The members of a group up to its closing brace, as far as the next brace.
fn first_parts(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            c if depth == 0 => members.last_mut().expect("there is always one").push(c),
            _ => {}
        }
    }
    members.iter().map(|member| path_at(member.trim())).filter(|path| !path.is_empty()).collect()
}

fn path_at(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    text[..end].trim_end_matches(':').to_owned()
}

#[test]
fn paths_are_found_as_they_are_written() {
    let code =
        "use crate::{\n    api::{a, b},\n    store::Key,\n    telemetry,\n};\nfn f(x: crate::registry::ApiError) {}";
    assert_eq!(crate_paths(code), ["api", "store::Key", "telemetry", "registry::ApiError"]);
    assert_eq!(crate_paths("my_crate::x"), Vec::<String>::new());
}
