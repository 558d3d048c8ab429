//! What a client command is about: `workloads`, `workload web db`, `wl/web source/desired`, `workloads,sources`.

use std::fmt;

use clap::Args;

use super::{
    CliError,
    catalogue::{Catalogue, Kind},
};

/// Where to look and what to pick; shared by the commands that read.
#[derive(Debug, Clone, Args)]
pub struct ScopeArgs {
    /// Namespace of the objects
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// Objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

impl ScopeArgs {
    /// The namespace, none for all of them. A name that cannot be one is refused before it gets into a path.
    pub fn namespace(&self) -> Result<Option<&str>, CliError> {
        check_name("a namespace", &self.namespace)?;
        Ok((!self.all_namespaces).then_some(self.namespace.as_str()))
    }
}

/// One kind, and a name unless all objects are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub kind: Kind,
    pub name: Option<String>,
}

/// Reads the words of a command line. Either every word is `kind/name`, or the first names kinds and the rest objects.
pub fn parse(words: &[String], catalogue: &Catalogue) -> Result<Vec<Target>, CliError> {
    let Some((first, names)) = words.split_first() else {
        return Err(CliError::Usage("say what: a kind such as `workloads`, or `kind/name`".into()));
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| pair(word, catalogue)).collect();
    }
    let mut kinds: Vec<Kind> = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        for kind in catalogue.named(word)? {
            // `all,gpus` names some kinds twice.
            if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
    }
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| Target { kind, name: None }).collect());
    }
    let [kind] = kinds.as_slice() else {
        return Err(CliError::Usage(format!("names of objects go with one kind, not with {first:?}")));
    };
    names
        .iter()
        .map(|name| {
            check_name("an object", name)?;
            Ok(Target { kind: kind.clone(), name: Some(name.clone()) })
        })
        .collect()
}

fn pair(word: &str, catalogue: &Catalogue) -> Result<Target, CliError> {
    let Some((kind, name)) = word.split_once('/') else {
        return Err(CliError::Usage(format!("{word:?} must be kind/name like the other arguments")));
    };
    check_name("an object", name)?;
    match catalogue.named(kind)?.as_slice() {
        [kind] => Ok(Target { kind: (*kind).clone(), name: Some(name.to_owned()) }),
        _ => Err(CliError::Usage(format!("{kind:?} is several kinds; an object has one"))),
    }
}

/// Names become parts of a path, so they may hold only what a name can hold.
pub fn check_name(what: &str, name: &str) -> Result<(), CliError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(CliError::Usage(format!("{name:?} cannot be the name of {what}")));
    }
    Ok(())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.kind),
            None => f.write_str(&self.kind.api.plural),
        }
    }
}
