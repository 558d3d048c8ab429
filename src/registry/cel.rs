//! The rules a schema states in CEL (`x-kubernetes-validations`), compiled once per kind.

use std::{collections::BTreeSet, sync::LazyLock};

use kube_cel::{CompiledSchema, RootContext, SchemaFormat, ValidationError, Validator, compile_schema};
use serde_json::{Value, json};

use super::{
    fields::{FieldError, Problem},
    schema::Node,
};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// The compiled rules of one kind.
#[derive(Debug)]
pub struct Rules {
    /// Only the nodes that matter to a rule: the validator converts the whole value again at every node it visits.
    compiled: CompiledSchema,
    context: RootContext,
    /// Fields of the object whose rules name the version before.
    read_old: BTreeSet<String>,
    any: bool,
}

impl Default for Rules {
    /// No rules.
    fn default() -> Self {
        Self {
            compiled: compile_schema(&Value::Null),
            context: RootContext::default(),
            read_old: BTreeSet::new(),
            any: false,
        }
    }
}

impl Rules {
    /// Fails on the first rule that does not compile: an object could never pass it.
    pub fn compile(schema: &Value, context: RootContext) -> Result<Self, String> {
        let mut compiled = compile_schema(schema);
        if let Some(error) = first_error(&compiled) {
            return Err(error);
        }
        let any = has_rules(&compiled);
        keep_what_rules_see(&mut compiled);
        let reads_old = |(_, schema): &(&String, &Value)| schema.to_string().contains("oldSelf");
        let fields = schema["properties"].as_object().into_iter().flatten();
        let read_old = fields.filter(reads_old).map(|(field, _)| field.clone()).collect();
        Ok(Self { compiled, context, read_old, any })
    }

    /// `object` has its defaults. `old` is the version before, for transition rules; none at create.
    ///
    /// What has not changed is not checked again, as upstream (KEP-4008): a rule that came later refuses nothing that was there
    /// before, and a write of status pays for the rules of status alone. Rules of the object itself see all of it, always.
    pub fn check(&self, object: &Value, old: Option<&Value>, node: &Node) -> Vec<FieldError> {
        if !self.any {
            return Vec::new();
        }
        let see_all = !self.compiled.validations.is_empty();
        let is_seen = |field: &str| {
            let is_same = || old.is_some_and(|old| old.get(field) == object.get(field));
            let has_rules = || self.compiled.properties.contains_key(field);
            see_all || self.read_old.contains(field) || has_rules() && !is_same()
        };
        let object = visible(object, &is_seen);
        let reads_old = see_all || !self.read_old.is_empty();
        let old = old.filter(|_| reads_old).map(|old| visible(old, &is_seen));
        match VALIDATOR.validate_compiled_with_context(&self.compiled, &object, old.as_ref(), Some(&self.context)) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|e| complaint(e, node)).collect(),
        }
    }
}

/// Of metadata, rules see the names alone, as upstream.
fn visible(object: &Value, is_seen: &impl Fn(&str) -> bool) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let fields = fields.iter().filter(|(key, _)| is_seen(key)).map(|(key, value)| match key.as_str() {
        "metadata" => {
            let names = ["name", "generateName"].into_iter().filter_map(|name| Some((name, value.get(name)?)));
            (key.clone(), json!(names.collect::<std::collections::BTreeMap<_, _>>()))
        }
        _ => (key.clone(), value.clone()),
    });
    Value::Object(fields.collect())
}

fn children(schema: &CompiledSchema) -> impl Iterator<Item = &CompiledSchema> {
    let single = schema.items.as_deref().into_iter().chain(schema.additional_properties.as_deref());
    let branches = schema.all_of.iter().chain(&schema.any_of).chain(&schema.one_of);
    schema.properties.values().chain(single).chain(branches)
}

fn has_rules(schema: &CompiledSchema) -> bool {
    !schema.validations.is_empty() || children(schema).any(has_rules)
}

/// Drops the nodes below which there is neither a rule nor anything that changes how a value looks to one. True when
/// this node itself is to stay.
fn keep_what_rules_see(schema: &mut CompiledSchema) -> bool {
    schema.properties.retain(|_, child| keep_what_rules_see(child));
    schema.items.take_if(|child| !keep_what_rules_see(child));
    schema.additional_properties.take_if(|child| !keep_what_rules_see(child));
    for branches in [&mut schema.all_of, &mut schema.any_of, &mut schema.one_of] {
        branches.retain_mut(keep_what_rules_see);
    }
    let looks_different = schema.is_map || schema.embedded_resource || !matches!(schema.format, SchemaFormat::None);
    looks_different || !schema.validations.is_empty() || children(schema).next().is_some()
}

fn first_error(schema: &CompiledSchema) -> Option<String> {
    let own = schema.compilation_errors().first().map(ToString::to_string);
    own.or_else(|| children(schema).find_map(first_error))
}

/// Upstream shows the type of the place that states the rule, not its value. With a `fieldPath` that place lies above
/// the field complained of, and is an object.
fn complaint(error: ValidationError, node: &Node) -> FieldError {
    let field = error.field_path.trim_start_matches('.').to_owned();
    let states_rule = |n: &&Node| n.rules.contains(&error.rule);
    let value = node.at(&field).filter(states_rule).and_then(|n| n.type_).map_or("object", |t| t.as_str()).into();
    let detail = error.message;
    let problem = match error.reason.as_deref() {
        Some("FieldValueRequired") => Problem::Required { detail },
        Some("FieldValueForbidden") => Problem::Forbidden { detail },
        Some("FieldValueDuplicate") => Problem::Duplicate { value },
        _ => Problem::Invalid { value, detail },
    };
    FieldError { field, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(rule: &str, object: Value, old: Option<Value>) -> usize {
        let x = json!({"type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": rule, "message": "no"}]});
        let schema = json!({"type": "object", "properties": {"spec": x, "status": {"type": "object"}}});
        let rules = Rules::compile(&schema, RootContext::default()).expect("a rule that compiles");
        rules.check(&object, old.as_ref(), &Node::parse(&schema).expect("a schema")).len()
    }

    #[test]
    fn what_has_not_changed_is_not_checked_again() {
        let with = |x: i64, phase: &str| json!({"spec": {"x": x}, "status": {"phase": phase}});
        let small = "self.x < 10";
        assert_eq!(checked(small, with(20, "a"), None), 1, "at create all is new");
        assert_eq!(checked(small, with(20, "b"), Some(with(20, "a"))), 0, "the rule came after the object");
        assert_eq!(checked(small, with(21, "a"), Some(with(20, "a"))), 1);
        let rises = "self.x > oldSelf.x";
        assert_eq!(checked(rises, with(21, "a"), Some(with(20, "a"))), 0);
        assert_eq!(checked(rises, with(20, "b"), Some(with(20, "a"))), 1, "of what a transition is, the rule decides");
    }
}
