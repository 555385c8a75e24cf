"""Recognizers that send recordings in pieces and store each answer: for vendors that answer at once and list nothing"""
