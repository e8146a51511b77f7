//! Flotilla's relay application on socketioxide, as its own examples would write it; with `REDIS_URL`, on its Redis adapter.

use std::env;
use std::error::Error;

use axum::Router;
use axum::serve::ListenerExt;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};
use tokio::net::TcpListener;

/// Listens on `127.0.0.1:PORT`, the port being the one argument.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("the port is missing")?.parse()?;
    let app = match env::var("REDIS_URL") {
        Ok(url) => {
            let client = redis::Client::open(format!("{url}?protocol=resp3"))?;
            let adapter = RedisAdapterCtr::new_with_redis(&client).await?;
            let (layer, io) =
                SocketIo::builder().with_adapter::<RedisAdapter<_>>(adapter).build_layer();
            io.ns("/", connected).await?;
            Router::new().layer(layer)
        }
        Err(_alone) => {
            let (layer, io) = SocketIo::new_layer();
            io.ns("/", connected);
            Router::new().layer(layer)
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a TCP stream"));
    Ok(axum::serve(listener, app).await?)
}

async fn connected<A: Adapter>(socket: SocketRef<A>) {
    // Elsewhere that is so by itself; `dm` needs it.
    socket.join(socket.id);
    socket.on("echo", async |Data(data): Data<Value>, ack: AckSender<A>| {
        ack.send(&data).ok();
    });
    socket.on("join", async |socket: SocketRef<A>, Data(room): Data<String>, ack: AckSender<A>| {
        socket.join(room);
        ack.send(&()).ok();
    });
    socket.on(
        "leave",
        async |socket: SocketRef<A>, Data(room): Data<String>, ack: AckSender<A>| {
            socket.leave(room);
            ack.send(&()).ok();
        },
    );
    socket.on("bcast", async |io: SocketIo<A>, Data(data): Data<Value>| {
        io.emit("msg", &data).await.ok();
    });
    socket.on("room", async |io: SocketIo<A>, Data((room, data)): Data<(String, Value)>| {
        io.to(room).emit("msg", &data).await.ok();
    });
    socket.on("dm", async |io: SocketIo<A>, Data((id, data)): Data<(String, Value)>| {
        io.to(id).emit("msg", &data).await.ok();
    });
}
