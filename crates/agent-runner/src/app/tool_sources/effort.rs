//! How much work a schema makes of some arguments, found out before it is done.
//!
//! Schemas come from foreign servers. A small one can mean more checks than anybody has time for: definitions that each
//! use the next one twice double with every level. This walks schema and arguments as a validator would, decides nothing,
//! and stops when the budget is spent.

use std::collections::HashMap;

use serde_json::Value;

/// References that lead on at one place of the arguments; more go in a circle.
const MAX_REFERENCES: u32 = 64;
/// Schemas that are applied inside of each other: validators go as deep on their stack.
const MAX_DEPTH: u32 = 200;

/// Whether checking the arguments takes no more than `budget` applications of schemas; what it takes is deducted.
pub(super) fn fits(schema: &Value, arguments: &Value, budget: &mut u32) -> bool {
    let mut anchors = HashMap::new();
    collect_anchors(schema, &mut anchors);
    let mut walk = Walk {
        root: schema,
        anchors,
        path: Vec::new(),
        budget,
    };
    walk.apply(schema, arguments, 0, 0)
}

fn collect_anchors<'a>(schema: &'a Value, anchors: &mut HashMap<&'a str, &'a Value>) {
    match schema {
        Value::Object(fields) => {
            for name in ["$anchor", "$dynamicAnchor"] {
                if let Some(Value::String(anchor)) = fields.get(name) {
                    anchors.insert(anchor, schema);
                }
            }
            fields.values().for_each(|field| collect_anchors(field, anchors));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_anchors(item, anchors)),
        _ => {}
    }
}

struct Walk<'a, 'b> {
    root: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    /// What references led to, one inside of the other.
    path: Vec<&'a Value>,
    budget: &'b mut u32,
}

impl<'a> Walk<'a, '_> {
    /// What a reference within the document refers to.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let fragment = reference.strip_prefix('#')?;
        let root = self.root;
        root.pointer(fragment).or_else(|| self.anchors.get(fragment).copied())
    }

    fn apply(&mut self, schema: &Value, instance: &Value, references: u32, depth: u32) -> bool {
        let Some(left) = self.budget.checked_sub(1) else {
            return false;
        };
        *self.budget = left;
        if depth >= MAX_DEPTH {
            return false;
        }
        let Some(fields) = schema.as_object() else { return true };
        let place = Place {
            instance,
            references,
            depth: depth + 1,
        };
        fields
            .iter()
            .all(|(keyword, value)| self.keyword(keyword, value, &place))
    }

    fn keyword(&mut self, keyword: &str, value: &Value, place: &Place<'_>) -> bool {
        let Place {
            instance,
            references,
            depth,
        } = *place;
        match (keyword, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(target)) => match self.target(target) {
                Some(target) if references < MAX_REFERENCES => self.follow(target, place),
                // Validators notice a circle.
                Some(target) => self.is_circle(target, references),
                // Nobody knows what that takes.
                None => false,
            },
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                parts.iter().all(|part| self.apply(part, instance, references, depth))
            }
            ("not" | "if" | "then" | "else", part) => self.apply(part, instance, references, depth),
            ("dependentSchemas" | "dependencies", Value::Object(parts)) => {
                parts.values().all(|part| self.apply(part, instance, references, depth))
            }
            ("properties", Value::Object(parts)) => parts.iter().all(|(name, part)| {
                let field = instance.get(name);
                field.is_none_or(|field| self.apply(part, field, 0, depth))
            }),
            ("patternProperties", Value::Object(parts)) => parts.values().all(|part| self.inside(part, place)),
            ("prefixItems" | "items", Value::Array(parts)) => parts.iter().all(|part| self.inside(part, place)),
            (
                "additionalProperties"
                | "unevaluatedProperties"
                | "propertyNames"
                | "items"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains",
                part,
            ) => self.inside(part, place),
            _ => true,
        }
    }

    fn follow(&mut self, target: &'a Value, place: &Place<'_>) -> bool {
        self.path.push(target);
        let fits = self.apply(target, place.instance, place.references + 1, place.depth);
        self.path.pop();
        fits
    }

    /// Whether references have led here before, at the same place of the arguments.
    fn is_circle(&self, target: &Value, references: u32) -> bool {
        let path = self.path.iter().rev().take(references as usize);
        path.into_iter().any(|before| std::ptr::eq(*before, target))
    }

    fn inside(&mut self, schema: &Value, place: &Place<'_>) -> bool {
        match place.instance {
            Value::Object(fields) => fields.values().all(|field| self.apply(schema, field, 0, place.depth)),
            Value::Array(items) => items.iter().all(|item| self.apply(schema, item, 0, place.depth)),
            _ => true,
        }
    }
}

/// Where the walk is.
struct Place<'a> {
    instance: &'a Value,
    /// That led to this schema without a step into the arguments.
    references: u32,
    /// Of the schemas inside of this one.
    depth: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checks(schema: &Value, arguments: &Value) -> Option<u32> {
        let mut budget = 10_000;
        fits(schema, arguments, &mut budget).then_some(10_000 - budget)
    }

    #[test]
    fn honest_schemas_cost_what_they_look_at() {
        let tree = json!({"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert_eq!(checks(&tree, &json!({})), Some(1));
        assert_eq!(checks(&tree, &json!({"left": {"right": {}}})), Some(5));
        let list = json!({"properties": {"ids": {"type": "array", "items": {"type": "integer"}}}});
        assert_eq!(checks(&list, &json!({"ids": [1, 2, 3]})), Some(5));
        assert_eq!(checks(&json!(true), &json!({})), Some(1));
    }

    #[test]
    fn what_doubles_on_every_level_of_the_arguments_is_too_much() {
        let schema = json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]});
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({ "a": deep });
        }
        assert_eq!(checks(&schema, &deep), None);
        assert!(checks(&schema, &json!({"a": {"a": {}}})).is_some());
        let circle = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert_eq!(checks(&circle, &json!({})), None, "two circles at once double as well");
        let named = json!({"$anchor": "me", "allOf": [{"$ref": "#me"}, {"$ref": "#me"}]});
        assert_eq!(checks(&named, &json!({})), None);
        assert_eq!(checks(&json!({"$ref": "#nobody"}), &json!({})), None);
    }

    #[test]
    fn schemas_inside_of_each_other_are_bounded() {
        let mut nested = json!({"properties": {"a": {"$ref": "#"}}});
        for _ in 0..30 {
            nested = json!({ "allOf": [nested] });
        }
        let mut deep = json!({});
        for _ in 0..30 {
            deep = json!({ "a": deep });
        }
        assert_eq!(checks(&nested, &deep), None, "900 on the stack of a validator");
        assert!(checks(&nested, &json!({"a": {"a": {}}})).is_some());
        assert!(checks(&json!({"$ref": "#"}), &json!({})).is_some(), "a circle");
        let chain: serde_json::Map<_, _> = (0..100)
            .map(|link| (link.to_string(), json!({"$ref": format!("#/$defs/{}", link + 1)})))
            .chain([("100".to_owned(), json!(true))])
            .collect();
        assert_eq!(checks(&json!({"$defs": chain, "$ref": "#/$defs/0"}), &json!({})), None);
        let tree = json!({"properties": {"a": {"$ref": "#"}}});
        assert!(checks(&tree, &deep).is_some());
    }
}
