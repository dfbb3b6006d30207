//! What answers cost.
//!
//! Prices are data (`prices.toml`, and an operator's file before it), money is whole microcents (1e-6 USD), and the sum
//! is rounded once: the parts of a [`Cost`] are the steps of the rounded running sum, so they always add up to the total
//! and more tokens never cost less. A model without a price costs `None`, which is not the same as nothing: whoever
//! keeps a budget must decide about it.

mod table;

use std::ops::{Add, AddAssign};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::port::Usage;

use table::{Price, Table};

const BUILTIN: &str = include_str!("prices.toml");
/// Prices are per this many tokens.
const PER_TOKENS: u128 = 1_000_000;
/// Backends that cost nothing, because they run here.
const FREE: &[&str] = &[crate::PLANNER, crate::AGENT_PLANNER, crate::SCRIPTED];

/// A price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// The file cannot be read.
    #[error("cannot read the price list {path}")]
    Read {
        /// The file.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The text is no price list.
    #[error("not a price list: {0}")]
    Parse(#[from] toml::de::Error),
    /// A longer prompt would cost less.
    #[error("the price of {provider} {model} above {above_prompt_tokens} prompt tokens is lower than below")]
    Falling {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
        /// From where on.
        above_prompt_tokens: u64,
    },
}

/// What an answer cost, in microcents (1e-6 USD).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Tokens read that came from no cache.
    pub input: u64,
    /// Tokens written, without those of thinking.
    pub output: u64,
    /// Tokens read from the cache.
    pub cache_read: u64,
    /// Tokens written to the cache.
    pub cache_creation: u64,
    /// Tokens of thinking, which are paid like those written.
    pub thinking: u64,
    /// The sum of the parts.
    pub total: u64,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_creation: self.cache_creation.saturating_add(other.cache_creation),
            thinking: self.thinking.saturating_add(other.thinking),
            total: self.total.saturating_add(other.total),
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The prices of all models that are known.
#[derive(Debug, Clone)]
pub struct Prices {
    /// Asked in this order.
    tables: Vec<Table>,
}

impl Prices {
    /// The prices this version came with.
    ///
    /// # Errors
    /// The built-in list is damaged.
    pub fn builtin() -> Result<Self, PricesError> {
        Ok(Self {
            tables: vec![Table::parse(BUILTIN)?],
        })
    }

    /// The same prices, with those of a file before them.
    ///
    /// # Errors
    /// The file cannot be read, or is no price list.
    pub fn with_file(mut self, path: impl AsRef<Path>) -> Result<Self, PricesError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| PricesError::Read {
            path: path.display().to_string(),
            source,
        })?;
        self.tables.insert(0, Table::parse(&text)?);
        Ok(self)
    }

    /// The cost of an answer by this model at this time; `None` where there is no price.
    #[must_use]
    pub fn cost(&self, backend: &str, model: &str, usage: &Usage, at: DateTime<Utc>) -> Option<Cost> {
        if FREE.contains(&backend) {
            return Some(Cost::default());
        }
        let prompt_tokens = usage
            .input_tokens
            .saturating_add(usage.cache_read_input_tokens)
            .saturating_add(usage.cache_creation_input_tokens);
        self.price(backend, model, prompt_tokens, at)
            .map(|price| cost(price, usage))
    }

    /// Whether tokens of the model cost nothing, however many there are.
    #[must_use]
    pub fn is_free(&self, backend: &str, model: &str, at: DateTime<Utc>) -> bool {
        let many = Usage {
            input_tokens: Usage::MAX_COUNT,
            output_tokens: Usage::MAX_COUNT,
            ..Usage::default()
        };
        self.cost(backend, model, &many, at).is_some_and(|cost| cost.total == 0)
    }

    fn price(&self, backend: &str, model: &str, prompt_tokens: u64, at: DateTime<Utc>) -> Option<&Price> {
        let model = model
            .strip_prefix(backend)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(model)
            .to_ascii_lowercase();
        let find = |provider: &str, model: &str| {
            self.tables
                .iter()
                .find_map(|table| table.find(provider, model, prompt_tokens, at))
        };
        find(backend, &model).or_else(|| {
            // A router charges what the vendor asks.
            let (vendor, name) = model.split_once('/').unwrap_or(("openai", &model));
            (backend == "hermes").then(|| find(vendor, &vendor_name(vendor, name)))?
        })
    }
}

/// Routers write versions with a dot where Anthropic has a hyphen.
fn vendor_name(vendor: &str, name: &str) -> String {
    if vendor == "anthropic" {
        name.replace('.', "-")
    } else {
        name.to_owned()
    }
}

fn cost(price: &Price, usage: &Usage) -> Cost {
    let thinking = usage.thinking_tokens.min(usage.output_tokens);
    let written = usage.output_tokens - thinking;
    let mut sum = 0_u128;
    let mut rounded = 0_u64;
    // The step that this part makes in the rounded running sum.
    let mut part = |tokens: u64, price: u64| {
        sum += u128::from(tokens) * u128::from(price);
        let before = rounded;
        rounded = u64::try_from((sum + PER_TOKENS / 2) / PER_TOKENS).unwrap_or(u64::MAX);
        rounded - before
    };
    let mut cost = Cost {
        input: part(usage.input_tokens, price.input),
        output: part(written, price.output),
        cache_read: part(usage.cache_read_input_tokens, price.cache_read.unwrap_or(price.input)),
        cache_creation: part(
            usage.cache_creation_input_tokens,
            price.cache_write.unwrap_or(price.input),
        ),
        thinking: part(thinking, price.output),
        total: 0,
    };
    cost.total = rounded;
    cost
}

#[cfg(test)]
mod tests;
