"""A small MCP server, by the official SDK: what an agent's tools are like."""

import sys

from mcp.server.fastmcp import FastMCP

server = FastMCP("tools", host="127.0.0.1", port=int(sys.argv[1]), log_level="WARNING")


@server.tool()
def send_reminder(invoice: int, text: str) -> str:
    """Sends a customer a reminder about an invoice."""
    return f"sent: {text} (invoice {invoice})"


if __name__ == "__main__":
    server.run(transport="streamable-http")
