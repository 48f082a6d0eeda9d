//! Configuration: TOML fragments as people write them, checked into settings that the rooms take as arguments.
//! Knows keys, defaults and where files lie. Must not know what an update is.

mod amount;
mod clearance;
mod complaint;
mod conflict;
mod env_file;
mod file;
mod fragment;
mod gateway;
mod idle;
mod layout;
mod notify;
mod plugins;
mod policy;
mod preset;
mod question;
mod repair;
mod script;
mod service;
mod settings;
mod template;
mod trust;
mod weight;

pub use env_file::unreadable;
pub(crate) use env_file::{variables, variables_of};
pub use file::{Error, directories, load, parse, schema, shown};
pub use fragment::DeclaredBy;
pub use gateway::cover;
pub(crate) use gateway::{CONFIGURATION, STATE, state_of};
pub use idle::{IdleAskSettings, IdleSettings};
pub use layout::{Account, Layout, Misplaced};
pub use notify::{NotifySettings, WaySettings, untellable};
pub use plugins::{PluginPolicy, PluginSettings, PluginWanted};
pub(crate) use plugins::{fill_plugins, usual_id};
pub use preset::preset_command;
pub use question::QuestionSettings;
pub use repair::RepairSettings;
pub use script::scripted;
pub(crate) use script::{found, run_by};
pub use settings::{
    Button, DaemonSettings, Directories, Port, Scripts, ServiceSettings, Settings, SourceSettings,
    StateSettings, VersionSettings, WebSocketSettings,
};
pub(crate) use template::{HOME, fill};
pub use trust::noted;
pub use weight::weighed;
