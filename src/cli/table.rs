//! The server's own tables, as aligned columns.

use comfy_table::{Table as Grid, presets};
use serde::Deserialize;
use serde_json::Value;

/// `meta.k8s.io/v1 Table`: which columns and cells there are is the server's decision.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Empty in the later events of a watch.
    #[serde(default)]
    pub column_definitions: Vec<Column>,
    #[serde(default)]
    pub rows: Vec<Row>,
    #[serde(default)]
    pub metadata: TableMeta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableMeta {
    #[serde(default)]
    pub resource_version: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    pub name: String,
    /// Above 0: only in wide output.
    #[serde(default)]
    pub priority: i32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Row {
    pub cells: Vec<Value>,
    /// Metadata of the object.
    #[serde(default)]
    pub object: Value,
}

impl Row {
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// How a table is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style<'a> {
    pub wide: bool,
    pub headers: bool,
    /// A first column NAMESPACE.
    pub namespaces: bool,
    /// `workload.gaia.dev`: put before each name, where tables of several kinds follow each other.
    pub prefix: Option<&'a str>,
}

/// Aligned text, one line a row.
pub fn render(table: &Table, style: Style<'_>) -> String {
    let shown = shown_columns(&table.column_definitions, style.wide);
    let mut lines = Vec::new();
    if style.headers {
        let names = shown.iter().map(|&i| table.column_definitions[i].name.to_uppercase());
        lines.push(style.namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(names).collect());
    }
    for row in &table.rows {
        let mut cells: Vec<String> = Vec::new();
        if style.namespaces {
            cells.push(row.namespace().unwrap_or_default().to_owned());
        }
        for (place, &i) in shown.iter().enumerate() {
            let cell = row.cells.get(i).map(text).unwrap_or_default();
            cells.push(match style.prefix {
                Some(prefix) if place == 0 => format!("{prefix}/{cell}"),
                _ => cell,
            });
        }
        lines.push(cells);
    }
    align(lines)
}

/// Which columns are shown, by index.
pub fn shown_columns(columns: &[Column], wide: bool) -> Vec<usize> {
    (0..columns.len()).filter(|&i| wide || columns[i].priority == 0).collect()
}

/// Columns three spaces apart, nothing after the last.
pub fn align(lines: Vec<Vec<String>>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING);
    grid.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    grid.add_rows(lines);
    for column in grid.column_iter_mut() {
        column.set_padding((0, 3));
    }
    format!("{}\n", grid.trim_fmt())
}

/// A cell on one line: kubectl's `<none>` for what is absent.
pub fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".to_owned(),
        Value::String(s) => s.replace(['\n', '\r'], " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        serde_json::from_value(json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "Image", "priority": 1}],
            "rows": [
                {"cells": ["web", null, "a\nb"], "object": {"metadata": {"name": "web", "namespace": "default"}}},
                {"cells": ["a-long-name", "True", "c"], "object": {"metadata": {"name": "a-long-name"}}},
            ],
        }))
        .expect("a table")
    }

    #[test]
    fn columns_are_aligned_and_the_wide_ones_left_out() {
        let style = Style { headers: true, ..Style::default() };
        assert_eq!(render(&table(), style), "NAME          READY\nweb           <none>\na-long-name   True\n");
    }

    #[test]
    fn wide_shows_all_with_namespace_and_kind() {
        let style = Style { wide: true, headers: false, namespaces: true, prefix: Some("wl") };
        assert_eq!(
            render(&table(), style),
            "default   wl/web           <none>   a b\n          wl/a-long-name   True     c\n"
        );
    }
}
