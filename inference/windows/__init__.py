"""Where a network looks, and how windows become one volume."""
