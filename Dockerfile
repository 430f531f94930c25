# Two images: `bulkscope` (the last stage, so the default) for `bulkscope setup` and `bulkscope studio`, and `demo` for
# the API and the workers of the demo. Neither has a shell of a user, a package manager's cache or a build tool of ours;
# both run as uid 10001 on a read-only root file system with /tmp and named volumes.

# 3.13: the newest Python that ./run prefers, with wheels of every locked package for amd64 and arm64.
FROM python:3.13.14-slim-bookworm AS base
ENV PATH=/opt/bulkscope/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A named volume takes owner and mode of the folder that it is mounted on.
RUN groupadd --gid 10001 bulkscope \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin bulkscope \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/bulkscope /var/lib/bulkscope/keys /var/lib/bulkscope/studio


FROM base AS locked
ENV UV_PROJECT_ENVIRONMENT=/opt/bulkscope \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock ./


FROM locked AS wheel
COPY README.md LICENSE ./
COPY otel otel
COPY instrumentation instrumentation
COPY studio studio
# What `bulkscope setup` puts into Elasticsearch and Kibana travels in the wheel.
COPY elasticsearch elasticsearch
COPY kibana kibana
RUN uv build --wheel --out-dir /dist


# In both environments what others wrote comes first: a change of ours leaves those layers as they are.
FROM locked AS environment
# From the lock file, hashes checked; no group of the project's development.
RUN uv sync --frozen --no-default-groups --extra studio --no-install-project
# A quarter that nothing here opens: tests and headers, Arrow's server and its clouds (no other of its libraries wants
# them), copies of its Python library, symbols for debuggers.
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/* \
    && cd /opt/bulkscope/lib/python3.*/site-packages \
    && rm -rf pyarrow/tests pyarrow/include pyarrow/src pyarrow/*flight* pyarrow/*s3* pyarrow/*cpp_tests* \
        pyarrow/*.so.*.*.* pyarrow/libarrow_python*.so pyarrow/*.px? pyarrow/*.pyx \
    && find . -type d -name tests -prune -exec rm -r {} + && find . -name '*.pyi' -delete && rm -r numpy/f2py \
    && strip --strip-unneeded uvloop/*.so httptools/parser/*.so pyarrow/libarrow.so.*
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/bulkscope/bin/python --no-deps /dist/*.whl
# What must still be there is imported: every module of the studio, and what was stripped.
RUN /opt/bulkscope/bin/python -c "import httptools, uvloop, bulkscope_studio, pkgutil; \
    [__import__(found.name) for found in pkgutil.walk_packages(bulkscope_studio.__path__, 'bulkscope_studio.') \
    if not found.name.endswith('__main__')]"


FROM locked AS demo-environment
# What a service carries, and the demo's own libraries: no database, no web pages.
RUN uv sync --frozen --no-default-groups --group demo --no-install-project
COPY demo demo
# COPY keeps modes, and a checkout made under umask 077 has files for their owner alone.
RUN chmod -R a+rX demo
# The second size of the model, which a container without a writable file system could not make.
RUN XDG_CACHE_HOME=/opt/models /opt/bulkscope/bin/python -c "from demo import models; models.prepare(print)"
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/bulkscope/bin/python --no-deps /dist/*.whl


FROM base AS demo
# The engine's wheel wants the system's OpenMP.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
ENV XDG_CACHE_HOME=/opt/models
COPY --from=demo-environment /opt/bulkscope /opt/bulkscope
COPY --from=demo-environment /opt/models /opt/models
WORKDIR /app
COPY --from=demo-environment /src/demo demo
USER 10001:10001
CMD ["bulkscope", "--help"]


FROM base AS bulkscope
ENV BULKSCOPE_DB=/var/lib/bulkscope/studio/bulkscope.duckdb
COPY --from=environment /opt/bulkscope /opt/bulkscope
WORKDIR /tmp
USER 10001:10001
# No HEALTHCHECK in either: what runs is chosen by the command, and docker-compose.yml checks each as it needs.
CMD ["bulkscope", "--help"]
