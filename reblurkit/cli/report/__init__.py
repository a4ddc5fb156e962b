"""``reblurkit report``: the page of one or several runs."""
