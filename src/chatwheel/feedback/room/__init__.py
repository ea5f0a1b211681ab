"""The labelling room: what people are asked to judge, who judges what, and what becomes of it."""
