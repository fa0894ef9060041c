"""The playground at `/`, and Swagger UI from an installed package: no page loads anything from elsewhere."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ASSETS = "/docs/assets"
PLAYGROUND = Path(__file__).resolve().parent.parent / "static" / "playground"
HEADERS = {
    # blob: allows the chosen picture. Nothing from other addresses is loaded, run or framed.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # browsers keep it and ask by its ETag, so that a new release shows at once
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Files(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def add_to(app: FastAPI) -> None:
    """Add `/` and `/docs`, and their assets."""
    app.mount("/playground", _Files(directory=PLAYGROUND), name="playground")
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def playground() -> FileResponse:
        return FileResponse(PLAYGROUND / "index.html", headers=HEADERS)

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )

    app.include_router(routes)
