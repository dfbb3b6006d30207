//! What model answers use, counted for every try: whoever drops an answer, or asks again, pays for it all the same.

use copass_llm::{Cost, Usage};

use super::engine::{Turn, tokens_in};
use crate::store::signed;

impl Turn<'_> {
    /// A model step begins.
    pub(super) fn begin_counting(&mut self) {
        (self.step_usage, self.step_cost) = (Usage::default(), Some(Cost::default()));
    }

    /// Adds to the sums; a cost that is not known makes them unknown.
    pub(super) fn count(&mut self, usage: Usage, is_cost_known: bool) {
        let cost = self.mind.cost(self.worker, &usage).filter(|_| is_cost_known);
        self.usage += usage;
        self.step_usage += usage;
        for sum in [&mut self.cost, &mut self.step_cost] {
            *sum = sum.zip(cost).map(|(sum, cost)| sum + cost);
        }
    }

    /// Counts the answer that was being read, however its reading ended: what the provider told of it is paid for.
    pub(super) fn count_open_answer(&mut self, used_nothing: bool) {
        let Some(usage) = self.open_answer.take() else {
            return;
        };
        if usage.is_implausible() {
            self.run.warnings.push(format!(
                "the provider told more tokens than an answer can have; they are counted as {}",
                Usage::MAX_COUNT
            ));
        }
        // What nobody told is not nothing.
        let is_known = used_nothing || !usage.is_untold() || self.mind.is_free(self.worker);
        self.count(usage, is_known);
        let (usage, cost) = (self.step_usage, self.step_cost);
        self.journal.amend(self.model_step, |step| {
            step.usage = Some(usage);
            step.cost_microcents = cost.map(|cost| signed(cost.total));
            step.tokens_in = Some(signed(tokens_in(&usage)));
            step.tokens_out = Some(signed(usage.output_tokens));
        });
    }
}
