//! The model provider port and the providers that need no network: the planner and the scripted one.
//!
//! Everything that runs a model in this system runs it through [`Provider`]: messages and tools go in, a stream of
//! text deltas, complete tool calls and exactly one finish comes out. A run loop therefore never knows which model
//! it talks to, and can be tested against a provider that stalls, fails half way or misbehaves on purpose.
//!
//! Three decisions shape the port:
//!
//! * **The history is the state.** [`Message`] is what is stored as conversation history and what a provider gets.
//!   A provider keeps nothing between two requests, so a run can move to another worker after any step.
//! * **Tool calls are complete.** Providers that receive them in pieces join them first; nobody downstream parses
//!   half a JSON object.
//! * **Dropping the stream stops the work.** There is no cancel call that could be forgotten.

mod planner;
mod port;
mod registry;
mod scripted;

pub use planner::{CatalogueError, Planner};
pub use port::{
    Error, ErrorKind, EventStream, Message, Provider, Request, StopReason, StreamEvent, ToolCall, ToolSpec, Usage,
};
pub use registry::{PLANNER, Registry, SCRIPTED};
pub use scripted::{Script, ScriptError, Scripted};
