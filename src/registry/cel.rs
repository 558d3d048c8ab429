//! The rules a schema states in CEL (`x-kubernetes-validations`), compiled once per kind.

use std::sync::LazyLock;

use kube_cel::{CompiledSchema, RootContext, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::{
    fields::{FieldError, Problem},
    schema::Node,
};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// The compiled rules of one kind.
#[derive(Debug)]
pub struct Rules {
    compiled: CompiledSchema,
    context: RootContext,
}

impl Default for Rules {
    /// No rules.
    fn default() -> Self {
        Self { compiled: compile_schema(&Value::Null), context: RootContext::default() }
    }
}

impl Rules {
    /// Fails on the first rule that does not compile: an object could never pass it.
    pub fn compile(schema: &Value, context: RootContext) -> Result<Self, String> {
        let compiled = compile_schema(schema);
        match first_error(&compiled) {
            Some(error) => Err(error),
            None => Ok(Self { compiled, context }),
        }
    }

    /// `old` is the version before, for transition rules; none at create.
    pub fn check(&self, object: &Value, old: Option<&Value>, node: &Node) -> Vec<FieldError> {
        match VALIDATOR.validate_compiled_with_context(&self.compiled, object, old, Some(&self.context)) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|e| complaint(e, node)).collect(),
        }
    }
}

fn first_error(schema: &CompiledSchema) -> Option<String> {
    let own = schema.compilation_errors().first().map(ToString::to_string);
    own.or_else(|| {
        let below = schema.properties.values().chain(schema.items.as_deref());
        let below = below.chain(schema.additional_properties.as_deref());
        let mut below = below.chain(&schema.all_of).chain(&schema.any_of).chain(&schema.one_of);
        below.find_map(first_error)
    })
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
