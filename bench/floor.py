"""The floor: what Flask under the same server costs when a view only parses the body and answers a
constant.
"""

import orjson
from flask import Flask, Response, request

ANSWER = b'{"cards":[]}'


def application() -> Flask:
    """The WSGI application."""
    app = Flask("floor", static_folder=None)

    @app.post("/cds-services/alp-review")
    def call() -> Response:
        orjson.loads(request.get_data())
        return Response(ANSWER, mimetype="application/json")

    return app
