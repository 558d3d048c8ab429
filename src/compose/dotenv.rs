//! Files of variables: `.env`, and what `env_file` names.

use super::interpolate::{MOST_OF_A_FILE, Variables, substitute};

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: u32,
    pub message: String,
}

/// `around`: what a variable may refer to beside those above it. Single quotes keep a value as it is.
pub(super) fn parse(text: &str, around: &Variables) -> Result<Vec<(String, String)>, Fault> {
    let mut known = around.clone();
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let (mut line, mut left) = (0, MOST_OF_A_FILE);
    while !rest.is_empty() {
        line += 1;
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let first = rest[..end].trim();
        if first.is_empty() || first.starts_with('#') {
            rest = &rest[end..];
            continue;
        }
        let fault = |message: String| Fault { line, message };
        let at = rest.len() - rest.trim_start().len();
        let statement = rest[at..].strip_prefix("export ").map_or(&rest[at..], str::trim_start);
        let name_end = statement.find(['=', '\n']).unwrap_or(statement.len());
        let name = statement[..name_end].trim();
        if !is_name(name) {
            return Err(fault("a line must be NAME=value".to_owned()));
        }
        let Some(value) = statement[name_end..].strip_prefix('=') else {
            // A name alone takes its value from the environment, of which there is none here: it stays unset.
            rest = &statement[name_end..];
            rest = rest.strip_prefix('\n').unwrap_or(rest);
            continue;
        };
        let (value, after) = read_value(value, &known).map_err(fault)?;
        let Some(less) = left.checked_sub(value.len()) else {
            return Err(fault(format!("with its variables, the file comes to more than {MOST_OF_A_FILE} bytes here")));
        };
        left = less;
        let used = &rest[..rest.len() - after.len()];
        line += u32::try_from(used.trim_end_matches('\n').matches('\n').count()).unwrap_or(0);
        rest = after;
        known.insert(name.to_owned(), value.clone());
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

/// As `docker run --env-file`: no quotes, no variables, no comments behind a value.
pub(super) fn parse_raw(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if is_name(name) => found.push((name.to_owned(), value.to_owned())),
            None if is_name(line.trim_end()) => {}
            _ => return Err(Fault { line: number, message: "a line must be NAME=value".to_owned() }),
        }
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The value, and what follows its line.
fn read_value<'a>(text: &'a str, known: &Variables) -> Result<(String, &'a str), String> {
    let text = text.trim_start_matches([' ', '\t']);
    match text.chars().next() {
        Some('\'') => {
            let (quoted, after) = until_quote(&text[1..], '\'')?;
            Ok((quoted.replace("\\'", "'"), end_of_line(after)?))
        }
        Some('"') => {
            let (quoted, after) = until_quote(&text[1..], '"')?;
            Ok((substitute(&unescape(quoted), known)?, end_of_line(after)?))
        }
        _ => {
            let end = text.find('\n').unwrap_or(text.len());
            let line = &text[..end];
            let comment =
                line.match_indices('#').map(|(at, _)| at).find(|at| *at == 0 || line[..*at].ends_with([' ', '\t']));
            let value = line[..comment.unwrap_or(line.len())].trim();
            Ok((substitute(value, known)?, text[end..].strip_prefix('\n').unwrap_or("")))
        }
    }
}

fn until_quote(text: &str, quote: char) -> Result<(&str, &str), String> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Ok((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    Err("a quote is not closed".to_owned())
}

fn end_of_line(text: &str) -> Result<&str, String> {
    let end = text.find('\n').unwrap_or(text.len());
    let trailing = text[..end].trim();
    if !trailing.is_empty() && !trailing.starts_with('#') {
        return Err("there is text behind the closing quote".to_owned());
    }
    Ok(text[end..].strip_prefix('\n').unwrap_or(""))
}

/// `\$` becomes `$$`, which stands for a dollar.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('$')) => out.push_str("$$"),
            ('\\', Some(c @ ('"' | '\\' | '\''))) => out.push(c),
            ('\\', Some(c)) => out.extend(['\\', c]),
            (c, _) => out.push(c),
        }
    }
    out
}
