//! The attribute macros of flotilla's dialects; `flotilla` re-exports them with their documentation.

mod controller;

use proc_macro::TokenStream;

/// Makes an `impl` block a controller: see `flotilla::apps::controllers::controller`.
#[proc_macro_attribute]
pub fn controller(arguments: TokenStream, block: TokenStream) -> TokenStream {
    controller::expand(arguments.into(), block.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
