//! What the nodes of the dialects' suites serve: an application in each dialect.

pub mod api;
pub mod controllers;
pub mod routes;
