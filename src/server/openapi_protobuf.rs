//! The OpenAPI v2 document in gnostic's protobuf form, the only one kubectl asks for. Before 1.27 it explains, validates
//! and finds out about dry-run from it; later ones tolerate its absence.
//!
//! Written by a table of field numbers rather than generated code: seven message types of strings and of each other.

use serde_json::{Map, Value};

/// The JSON document (Swagger 2) as protobuf. Only what clients read: names, types, descriptions, references, parameters
/// and the `x-` extensions.
pub fn encode(document: &Value) -> Vec<u8> {
    let info = Message::default().text(1, &document["info"]["title"]).text(2, &document["info"]["version"]);
    let mut paths = Message::default();
    for (path, item) in entries(&document["paths"]) {
        paths = paths.message(2, named(path, path_item(item)));
    }
    let mut definitions = Message::default();
    for (name, schema) in entries(&document["definitions"]) {
        definitions = definitions.message(1, named(name, self::schema(schema)));
    }
    Message::default().text(1, &document["swagger"]).message(2, info).message(8, paths).message(9, definitions).bytes
}

/// Fields of a message, in the order in which they were added.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A string that is not there is not written.
    fn text(self, field: u32, value: &Value) -> Self {
        match value.as_str() {
            Some(text) => self.delimited(field, text.as_bytes()),
            None => self,
        }
    }

    fn message(self, field: u32, message: Message) -> Self {
        self.delimited(field, &message.bytes)
    }

    /// Only truth is written: false is what absence means.
    fn truth(mut self, field: u32, value: bool) -> Self {
        if value {
            self.varint(u64::from(field << 3));
            self.varint(1);
        }
        self
    }

    fn delimited(mut self, field: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// `x-…` as NamedAny, the value as YAML, of which JSON is a part.
    fn extensions(mut self, field: u32, object: &Value) -> Self {
        for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
            let any = Message::default().delimited(2, format!("{value}\n").as_bytes());
            self = self.message(field, named(name, any));
        }
        self
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn named(name: &str, value: Message) -> Message {
    Message::default().delimited(1, name.as_bytes()).message(2, value)
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            out = out.message(field, operation(&item[method]));
        }
    }
    items(&item["parameters"]).fold(out, |out, parameter| out.message(9, self::parameter(parameter)))
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default().text(5, &operation["operationId"]);
    for (field, list) in [(6, "produces"), (7, "consumes")] {
        out = items(&operation[list]).fold(out, |out, media| out.text(field, media));
    }
    out = items(&operation["parameters"]).fold(out, |out, parameter| out.message(8, self::parameter(parameter)));
    out.extensions(13, operation)
}

/// ParametersItem → Parameter → the form of its place.
fn parameter(parameter: &Value) -> Message {
    let required = parameter["required"] == true;
    let in_query = parameter["in"] == "query";
    let inner = if parameter["in"] == "body" {
        let body = Message::default().text(2, &parameter["name"]).text(3, &parameter["in"]).truth(4, required);
        Message::default().message(1, body.message(5, schema(&parameter["schema"])))
    } else {
        let plain = Message::default()
            .truth(1, required)
            .text(2, &parameter["in"])
            .text(3, &parameter["description"])
            .text(4, &parameter["name"])
            .text(if in_query { 6 } else { 5 }, &parameter["type"]);
        Message::default().message(2, Message::default().message(if in_query { 3 } else { 4 }, plain))
    };
    Message::default().message(1, inner)
}

fn schema(schema: &Value) -> Message {
    let reference = match schema["allOf"].as_array().map(Vec::as_slice) {
        Some([only]) => &only["$ref"],
        Some(_) | None => &schema["$ref"],
    };
    if reference.is_string() {
        return Message::default().text(1, reference).text(4, &schema["description"]);
    }
    let mut out = Message::default().text(2, &schema["format"]).text(4, &schema["description"]);
    out = items(&schema["required"]).fold(out, |out, name| out.text(19, name));
    // What may hold anything is told without properties: clients take those told for all there may be.
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["additionalProperties"].is_object() {
        out = out.message(21, Message::default().message(1, self::schema(&schema["additionalProperties"])));
    }
    if schema["type"].is_string() {
        out = out.message(22, Message::default().text(1, &schema["type"]));
    }
    if schema["items"].is_object() {
        out = out.message(23, Message::default().message(1, self::schema(&schema["items"])));
    }
    if schema["properties"].is_object() && !open {
        let mut properties = Message::default();
        for (name, property) in entries(&schema["properties"]) {
            properties = properties.message(1, named(name, self::schema(property)));
        }
        out = out.message(25, properties);
    }
    out.extensions(31, schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of a message of strings and messages: number and bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let (first, rest) = bytes.split_first().expect("the message ends within a number");
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            assert_eq!(tag & 7, 2, "a field that is neither text nor message");
            let length = usize::try_from(varint(&mut bytes)).expect("small");
            let (value, rest) = bytes.split_at(length);
            out.push((tag >> 3, value.to_vec()));
            bytes = rest;
        }
        out
    }

    #[test]
    fn a_document_can_be_read_back() {
        let long = "x".repeat(300);
        let document = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {},
            "definitions": {"a.Thing": {"type": "object", "description": long, "x-y": [{"kind": "Thing"}]}},
        });
        let document = fields(&encode(&document));
        assert_eq!(document.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 8, 9]);
        let definition = fields(&fields(&document[3].1)[0].1);
        assert_eq!(definition[0], (1, b"a.Thing".to_vec()));
        let schema = fields(&definition[1].1);
        assert_eq!(schema[0], (4, long.into_bytes()));
        assert_eq!(fields(&schema[1].1), [(1, b"object".to_vec())]);
        let extension = fields(&schema[2].1);
        assert_eq!((schema[2].0, &extension[0]), (31, &(1, b"x-y".to_vec())));
        assert_eq!(fields(&extension[1].1), [(2, b"[{\"kind\":\"Thing\"}]\n".to_vec())]);
    }

    #[test]
    fn a_reference_says_nothing_else_of_its_own() {
        let wrapped = json!({"description": "d", "allOf": [{"$ref": "#/definitions/a"}], "type": "object"});
        assert_eq!(fields(&schema(&wrapped).bytes), [(1, b"#/definitions/a".to_vec()), (4, b"d".to_vec())]);
    }
}
