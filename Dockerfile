# The service alone, for use with a Postgres of its own (docker-compose.yml). The private Postgres of a start
# without --database-url is not in this image.

# The release of rust-toolchain.toml, which itself is left out so that rustup downloads nothing.
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked && cp target/release/holdfast /holdfast

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin holdfast \
    && install -d -o holdfast -g holdfast -m 0700 /data
COPY --from=build /holdfast /usr/local/bin/holdfast
COPY LICENSE /usr/share/doc/holdfast/LICENSE
USER holdfast
# Secrets of the first start.
VOLUME /data
ENV HOLDFAST_DATA_DIR=/data \
    HOLDFAST_HTTP=0.0.0.0:8080 \
    HOLDFAST_MQTT=0.0.0.0:1883
EXPOSE 8080 1883
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["holdfast"]
CMD ["serve"]
