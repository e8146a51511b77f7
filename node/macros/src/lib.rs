//! The attribute macros of flotilla's dialects; `flotilla` re-exports them with their documentation.

mod api;
mod controller;
mod signature;

use proc_macro::TokenStream;

/// Makes an `impl` block what a client may call: see `flotilla::apps::api::api`.
#[proc_macro_attribute]
pub fn api(arguments: TokenStream, block: TokenStream) -> TokenStream {
    api::expand(arguments.into(), block.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an `impl` block a controller: see `flotilla::apps::controllers::controller`.
#[proc_macro_attribute]
pub fn controller(arguments: TokenStream, block: TokenStream) -> TokenStream {
    controller::expand(arguments.into(), block.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
