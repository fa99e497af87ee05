"""Feeds of strangers: fetched within limits, read into offers, their texts made harmless."""

from shared.feeds.fetching import Fetched, Fetcher, FetchError
from shared.feeds.scanner import Deal, Feed, read_feed, scan

__all__ = ["Deal", "Feed", "FetchError", "Fetched", "Fetcher", "read_feed", "scan"]
