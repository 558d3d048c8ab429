//! `gaia get`: objects as the server's table, or whole.

use std::io::Write;

use clap::{Args, ValueEnum};
use kube::core::params::{GetParams, ListParams};
use serde_json::{Value, json};

use super::{
    CliError, Outcome,
    catalogue::{Catalogue, Kind},
    error::while_,
    print,
    session::{ServerArgs, Session},
    table::{self, Style, Table},
    target::{self, ScopeArgs, Target},
};

#[derive(Debug, Args)]
pub struct GetArgs {
    /// A kind and names, or `kind/name` …
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    targets: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    pick: PickArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Leave out the line of column names
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which objects of a list.
#[derive(Debug, Clone, Default, Args)]
pub struct PickArgs {
    /// Only objects with these labels, `app=web,tier!=cache`
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only objects with these fields, `metadata.name=web`
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
}

impl PickArgs {
    pub fn params(&self) -> ListParams {
        let (labels, fields) = (self.selector.clone(), self.field_selector.clone());
        ListParams { label_selector: labels, field_selector: fields, ..ListParams::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.selector.is_none() && self.field_selector.is_none()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    /// The table with the columns that are rarely needed
    Wide,
    Yaml,
    Json,
    /// `workload.gaia.dev/web`
    Name,
}

pub async fn run(args: GetArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let targets = target::parse(&args.targets, &catalogue)?;
    if targets.iter().any(|t| t.name.is_some()) && (args.scope.all_namespaces || !args.pick.is_empty()) {
        return Err(CliError::Usage("a selector or --all-namespaces goes with a kind, not with a name".into()));
    }
    let namespace = args.scope.namespace()?;
    match args.output {
        Output::Table => tables(&session, &args, &targets, namespace, false, out).await,
        Output::Wide => tables(&session, &args, &targets, namespace, true, out).await,
        Output::Yaml | Output::Json | Output::Name => objects(&session, &args, &targets, namespace, out).await,
    }
}

async fn tables(
    session: &Session,
    args: &GetArgs,
    targets: &[Target],
    namespace: Option<&str>,
    wide: bool,
    out: &mut dyn Write,
) -> Outcome {
    let (tables, failures) = fetch_tables(session, args, targets, namespace).await;
    let several = tables.len() > 1;
    let mut first = true;
    for (kind, table) in tables.iter().filter(|(_, table)| !table.rows.is_empty()) {
        if several && !first {
            writeln!(out)?;
        }
        first = false;
        let prefix = several.then(|| kind.to_string());
        let style = Style {
            wide,
            headers: !args.no_headers,
            namespaces: namespace.is_none() && kind.namespaced,
            prefix: prefix.as_deref(),
        };
        out.write_all(table::render(table, style).as_bytes())?;
    }
    if first && failures.is_empty() {
        match namespace {
            Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
            None => eprintln!("No resources found."),
        }
    }
    print::failures(failures)
}

/// One table a kind, and what could not be had: one object that is missing does not hide the others.
async fn fetch_tables<'a>(
    session: &Session,
    args: &GetArgs,
    targets: &'a [Target],
    namespace: Option<&str>,
) -> (Vec<(&'a Kind, Table)>, Vec<CliError>) {
    let mut tables: Vec<(&Kind, Table)> = Vec::new();
    let mut failures = Vec::new();
    for target in targets {
        let answer = match request(target, &args.pick, namespace) {
            Ok(request) => session.ask_table(request).await.map_err(while_(format!("cannot get {target}"))),
            Err(e) => Err(e),
        };
        match answer.and_then(|answer| parse_table(answer, target)) {
            Ok(mut table) => match tables.iter_mut().find(|(kind, _)| **kind == target.kind) {
                Some((_, all)) => all.rows.append(&mut table.rows),
                None => tables.push((&target.kind, table)),
            },
            Err(e) => failures.push(e),
        }
    }
    (tables, failures)
}

pub fn parse_table(answer: Value, target: &Target) -> Result<Table, CliError> {
    serde_json::from_value(answer)
        .map_err(|e| CliError::Failed(format!("the server's answer for {target} is not a table: {e}")))
}

async fn objects(
    session: &Session,
    args: &GetArgs,
    targets: &[Target],
    namespace: Option<&str>,
    out: &mut dyn Write,
) -> Outcome {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for target in targets {
        match fetch(session, target, &args.pick, namespace).await {
            Ok(objects) => found.extend(objects),
            Err(e) => failures.push(e),
        }
    }
    if args.output == Output::Name {
        for (kind, object) in &found {
            writeln!(out, "{kind}/{}", print::name(object))?;
        }
        return print::failures(failures);
    }
    let single = targets.len() == 1 && targets[0].name.is_some();
    let mut items: Vec<_> = found.into_iter().map(|(_, object)| object).collect();
    let whole = match (single, items.pop()) {
        (true, None) => return print::failures(failures),
        (true, Some(object)) => object,
        (false, last) => {
            items.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
        }
    };
    match args.output {
        Output::Json => writeln!(out, "{whole:#}")?,
        Output::Yaml | Output::Table | Output::Wide | Output::Name => out.write_all(print::yaml(&whole)?.as_bytes())?,
    }
    print::failures(failures)
}

/// The objects a target means, whole, each with its `apiVersion` and `kind`.
pub async fn fetch(
    session: &Session,
    target: &Target,
    pick: &PickArgs,
    namespace: Option<&str>,
) -> Result<Vec<(Kind, Value)>, CliError> {
    let request = request(target, pick, namespace)?;
    let mut answer = session.ask(request).await.map_err(while_(format!("cannot get {target}")))?;
    let kind = &target.kind;
    if target.name.is_some() {
        return Ok(vec![(kind.clone(), answer)]);
    }
    let Value::Array(items) = answer["items"].take() else { return Ok(Vec::new()) };
    let whole = |item: Value| {
        let Value::Object(fields) = item else { return item };
        // Items of a list need not say what they are; first in the text when they do.
        let mut object = json!({"apiVersion": kind.api.api_version, "kind": kind.api.kind});
        for (key, value) in fields {
            object[key] = value;
        }
        object
    };
    Ok(items.into_iter().map(|item| (kind.clone(), whole(item))).collect())
}

fn request(
    target: &Target,
    pick: &PickArgs,
    namespace: Option<&str>,
) -> Result<axum::http::Request<Vec<u8>>, CliError> {
    let requests = target.kind.request(namespace);
    let request = match &target.name {
        Some(name) => requests.get(name, &GetParams::default()),
        None => requests.list(&pick.params()),
    };
    request.map_err(|e| CliError::Usage(format!("cannot ask for {target}: {e}")))
}
