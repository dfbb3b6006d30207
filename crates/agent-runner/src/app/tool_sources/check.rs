//! What a source may claim: bounds on number, names, descriptions and schemas of tools (`expectations.md` 4, 5).
//!
//! A description is text that a model reads as instructions, so it is cut and freed of characters nobody sees. A source
//! that is wrong about one tool is not believed about the others: it is skipped as a whole, and the reason names the tool.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use copass_llm::ToolSpec;
use jsonschema::PatternOptions;
use serde_json::{Map, Value};

use super::{Built, Skipped, ToolCaller, ToolDraft, effort, names};

const MAX_TOOLS: usize = 500;
const MAX_NAME_CHARS: usize = 128;
const MAX_APP_SLUG_CHARS: usize = 128;
const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// All schemas of one source together.
const MAX_SOURCE_BYTES: usize = 4 * 1024 * 1024;
/// Schemas that one check of arguments may apply; parts that refer to parts twice, on many levels, mean more than time
/// can hold.
const MAX_CHECKS: u32 = 100_000;
/// One compiled pattern.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
/// Steps back that one pattern may take in one text.
const MAX_BACKTRACKS: usize = 1_000;

/// A tool that may be offered.
pub(crate) struct ResolvedTool {
    pub(crate) spec: ToolSpec,
    pub(crate) app_slug: String,
    pub(crate) source: Arc<str>,
    pub(crate) caller: Arc<dyn ToolCaller>,
    /// What it takes to keep.
    pub(super) bytes: usize,
    /// Compiled at the first call: most tools of a run are never called.
    validator: OnceLock<Option<jsonschema::Validator>>,
}

impl std::fmt::Debug for ResolvedTool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ResolvedTool({} of {})", self.spec.name, self.source)
    }
}

impl ResolvedTool {
    pub(super) fn new(draft: ToolDraft, source: Arc<str>, caller: Arc<dyn ToolCaller>, bytes: usize) -> Self {
        Self {
            bytes,
            spec: ToolSpec {
                name: draft.name,
                description: draft.description,
                input_schema: draft.input_schema,
                read_only: draft.is_read_only,
            },
            app_slug: draft.app_slug,
            source,
            caller,
            validator: OnceLock::new(),
        }
    }

    /// What is wrong with the arguments, by the tool's schema; `None` when nothing is.
    pub(crate) fn problem(&self, arguments: &Map<String, Value>) -> Option<String> {
        let instance = Value::Object(arguments.clone());
        let mut checks = MAX_CHECKS;
        if !effort::fits(&self.spec.input_schema, &instance, &mut checks) {
            return Some("the tool's own schema takes too long to check; tell its owner".to_owned());
        }
        let validator = self.validator.get_or_init(|| compile(&self.spec.input_schema));
        let Some(validator) = validator else {
            return Some("the tool's own schema is broken, so no arguments can be checked; tell its owner".to_owned());
        };
        let problems: Vec<String> = validator
            .iter_errors(&instance)
            .take(5)
            .map(|error| {
                let place = error.instance_path().to_string();
                // The message repeats the value, which may be long and may be a secret.
                let what = error.masked().to_string();
                if place.is_empty() {
                    what
                } else {
                    format!("{place}: {what}")
                }
            })
            .collect();
        (!problems.is_empty()).then(|| {
            let text = problems.join("; ");
            text[..text.floor_char_boundary(2_000)].to_owned()
        })
    }
}

/// Patterns take time in proportion to the text; those that look around, which only the other engine knows, may take few
/// steps.
fn compile(schema: &Value) -> Option<jsonschema::Validator> {
    let linear = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES);
    let looking_around = PatternOptions::fancy_regex()
        .size_limit(MAX_PATTERN_BYTES)
        .backtrack_limit(MAX_BACKTRACKS);
    let linear = jsonschema::options().with_pattern_options(linear).build(schema);
    let either = linear.or_else(|_| jsonschema::options().with_pattern_options(looking_around).build(schema));
    either.ok()
}

/// The source's tools, cleaned and within the bounds.
pub(crate) fn check(source: &Arc<str>, built: Built) -> Result<Vec<Arc<ResolvedTool>>, Skipped> {
    if built.tools.len() > MAX_TOOLS {
        return Err(Skipped(format!("it has more than {MAX_TOOLS} tools; narrow it down")));
    }
    let mut names = HashSet::with_capacity(built.tools.len());
    let mut bytes = 0;
    let mut tools = Vec::with_capacity(built.tools.len());
    for mut draft in built.tools {
        let is_sound =
            copass_types::validate::name(&draft.name, MAX_NAME_CHARS).and_then(|()| names::check(&draft.name));
        if let Err(problem) = is_sound {
            return Err(Skipped(format!("one of its tools has a name that {problem}")));
        }
        if !names.insert(draft.name.clone()) {
            return Err(Skipped(format!("it has two tools with the name {}", draft.name)));
        }
        if copass_types::validate::name(&draft.app_slug, MAX_APP_SLUG_CHARS).is_err() {
            source.as_ref().clone_into(&mut draft.app_slug);
        }
        let schema_bytes = schema_bytes(&draft)?;
        let tool_bytes = schema_bytes + draft.description.len();
        bytes += tool_bytes;
        if bytes > MAX_SOURCE_BYTES {
            return Err(Skipped(format!("its tools take more than {MAX_SOURCE_BYTES} bytes")));
        }
        draft.description = visible(&draft.description);
        clean_texts(&mut draft.input_schema);
        let caller = built.caller.clone();
        tools.push(Arc::new(ResolvedTool::new(draft, source.clone(), caller, tool_bytes)));
    }
    Ok(tools)
}

fn schema_bytes(draft: &ToolDraft) -> Result<usize, Skipped> {
    let name = &draft.name;
    let Some(schema) = draft.input_schema.as_object() else {
        return Err(Skipped(format!("the schema of {name} is no JSON object")));
    };
    let kind = schema.get("type");
    if kind.is_some_and(|kind| kind != "object") {
        return Err(Skipped(format!("the schema of {name} describes no object")));
    }
    if schema
        .get("properties")
        .is_some_and(|properties| !properties.is_object())
    {
        return Err(Skipped(format!(
            "the schema of {name} has properties that are no object"
        )));
    }
    if refers_outside(&draft.input_schema, 0) {
        return Err(Skipped(format!(
            "the schema of {name} refers to another document, or is nested too deeply"
        )));
    }
    let bytes = draft.input_schema.to_string().len();
    if bytes > MAX_SCHEMA_BYTES {
        return Err(Skipped(format!(
            "the schema of {name} is larger than {MAX_SCHEMA_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// A reference to another document would make this server fetch it.
fn refers_outside(schema: &Value, depth: usize) -> bool {
    if depth > 64 {
        return true;
    }
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| match (name.as_str(), value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(target)) => !target.starts_with('#'),
            // A document within the document, in which references mean something else.
            ("$id", Value::String(_)) => depth > 0,
            _ => refers_outside(value, depth + 1),
        }),
        Value::Array(items) => items.iter().any(|item| refers_outside(item, depth + 1)),
        _ => false,
    }
}

/// Cleans the texts of a schema that only a model reads, which it does as it reads the tool's description.
fn clean_texts(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if ["description", "title", "$comment"].contains(&name.as_str()) => {
                        *text = visible(text);
                    }
                    value => clean_texts(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean_texts),
        _ => {}
    }
}

/// The text without characters that nobody sees, cut where it is too long.
fn visible(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_DESCRIPTION_BYTES)];
    text.chars()
        .filter(|character| {
            let is_control = character.is_control() && !matches!(character, '\n' | '\t');
            !is_control && !is_unseen(*character)
        })
        .collect()
}

/// Zero width, direction marks, tags: what a reader of the page does not see and a model does.
pub(super) fn is_unseen(character: char) -> bool {
    matches!(u32::from(character),
        0x00ad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xe0000..=0xe007f)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::tool_sources::{Call, ToolAnswer};

    struct Nobody;

    #[async_trait]
    impl ToolCaller for Nobody {
        async fn call(&self, _: Call<'_>) -> copass_errors::Result<ToolAnswer> {
            Ok(ToolAnswer {
                result: Map::new(),
                error: None,
            })
        }
    }

    fn draft(name: &str, schema: Value) -> ToolDraft {
        ToolDraft {
            name: name.to_owned(),
            app_slug: "app".to_owned(),
            description: "d".to_owned(),
            input_schema: schema,
            is_read_only: true,
        }
    }

    fn checked(tools: Vec<ToolDraft>) -> Result<Vec<Arc<ResolvedTool>>, Skipped> {
        check(
            &"s".into(),
            Built {
                tools,
                caller: Arc::new(Nobody),
            },
        )
    }

    #[test]
    fn a_source_that_lies_about_one_tool_loses_its_place() {
        let object = || json!({"type": "object"});
        assert_eq!(
            checked(vec![draft("a", object()), draft("b", object())]).unwrap().len(),
            2
        );
        for (tools, word) in [
            (vec![draft("a", object()), draft("a", object())], "two tools"),
            (vec![draft("a", json!("text"))], "no JSON object"),
            (vec![draft("a", json!({"type": "string"}))], "no object"),
            (vec![draft("a", json!({"properties": []}))], "properties"),
            (vec![draft("a", json!({"$ref": "other.json"}))], "another document"),
            (
                vec![draft("a", json!({"$defs": {"b": {"$id": "b.json"}}}))],
                "another document",
            ),
            (vec![draft("", object())], "name"),
            (
                vec![draft("a", json!({"description": "x".repeat(MAX_SCHEMA_BYTES)}))],
                "larger",
            ),
            (
                (0..=MAX_TOOLS)
                    .map(|number| draft(&number.to_string(), object()))
                    .collect(),
                "more than",
            ),
        ] {
            let reason = checked(tools).unwrap_err().0;
            assert!(reason.contains(word), "{reason} does not say {word}");
        }
    }

    #[test]
    fn descriptions_lose_what_nobody_sees_and_are_cut() {
        let mut tool = draft("a", json!({"type": "object"}));
        tool.description = format!("a\u{200b}b\u{e0041}c\u{7}{}", "x".repeat(MAX_DESCRIPTION_BYTES));
        let tools = checked(vec![tool]).unwrap();
        assert!(tools[0].spec.description.starts_with("abcx"));
        assert!(tools[0].spec.description.len() <= MAX_DESCRIPTION_BYTES);
    }

    #[test]
    fn what_a_model_reads_in_a_schema_is_cleaned_and_what_is_checked_is_not() {
        let hidden = "a\u{200b}b";
        let tool = draft(
            "a",
            json!({"type": "object", "description": hidden, "properties": {
                "description": {"type": "string", "title": hidden, "enum": [hidden]},
                "list": {"items": [{"$comment": hidden}]},
            }}),
        );
        let tools = checked(vec![tool]).unwrap();
        let expected = json!({"type": "object", "description": "ab", "properties": {
            "description": {"type": "string", "title": "ab", "enum": [hidden]},
            "list": {"items": [{"$comment": "ab"}]},
        }});
        assert_eq!(tools[0].spec.input_schema, expected);
    }

    #[test]
    fn a_schema_that_never_ends_refuses_every_call_at_once() {
        let mut definitions = Map::new();
        for level in 0..60 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            definitions.insert(format!("d{level}"), json!({"allOf": [next, next]}));
        }
        definitions.insert("d60".to_owned(), json!({"type": "object"}));
        let bomb = json!({"type": "object", "$defs": definitions, "allOf": [{"$ref": "#/$defs/d0"}]});
        let tool = checked(vec![draft("a", bomb)]).unwrap().remove(0);
        assert!(tool.problem(&Map::new()).unwrap().contains("too long"));
        // A circle is none of that.
        let circle = json!({"type": "object", "allOf": [{"$ref": "#"}]});
        let tool = checked(vec![draft("a", circle)]).unwrap().remove(0);
        assert_eq!(tool.problem(&Map::new()), None);
    }

    #[test]
    fn arguments_are_checked_by_the_schema_and_the_value_is_not_repeated() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
            "additionalProperties": false});
        let tool = checked(vec![draft("a", schema)]).unwrap().remove(0);
        let object = |value: Value| value.as_object().cloned().unwrap();
        assert_eq!(tool.problem(&object(json!({"n": 1}))), None);
        let problem = tool.problem(&object(json!({"n": "olk_secret"}))).unwrap();
        assert!(problem.contains("/n") && !problem.contains("olk_secret"), "{problem}");
        assert!(tool.problem(&object(json!({}))).is_some());
        assert!(tool.problem(&object(json!({"n": 1, "m": 2}))).is_some());
    }

    #[test]
    fn a_schema_that_cannot_be_compiled_refuses_every_call() {
        let tool = checked(vec![draft("a", json!({"type": "object", "required": 3}))])
            .unwrap()
            .remove(0);
        assert!(tool.problem(&Map::new()).unwrap().contains("broken"));
    }
}
